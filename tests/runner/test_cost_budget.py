"""A budget: what is refused, what each run may spend, and when the user is asked."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.rungs import Rungs
from runner.compare.ranking import compare_sweep
from runner.cost.types import NOTHING, Range
from runner.environment.verdicts import Verdicts
from runner.errors import SweepError
from runner.estimate.types import PlanCost, RunCost
from runner.launch.budget import (
    bound_line,
    check_budget,
    check_budget_options,
    confirm,
    left_line,
    with_further,
    with_shares,
)
from runner.launch.price import further_lines
from runner.launch.types import Launch
from runner.preflight.stage import Preflight
from runner.request import Action, Request, SearchChoice, SearchMethod, SearchRound
from runner.types import ExecutorChoice
from tests.runner.builders import finish_run, open_sweep, plan, run


def cost(*dollars: float | None, preparing: float = 0.0) -> PlanCost:
    """The cost of runs with these upper estimates, at a tenth of a dollar a second."""
    runs = tuple(
        RunCost(f"run{number}", dollars=None if one is None else Range(one / 3, one / 2, one), dollars_s=0.1)
        for number, one in enumerate(dollars)
    )
    return PlanCost(runs, NOTHING, Range.exactly(preparing), None, 1, None)


def request(**words: Any) -> Request:
    return Request(Action.LAUNCH, "sweep", None, json=False, **words)


def test_what_may_cost_more_than_the_budget_is_refused_unless_forced() -> None:
    check_budget(cost(6.0, 3.0, preparing=1.0), request(budget=10.0))
    with pytest.raises(
        SweepError, match=r"budget=9.9: this may cost \$10.00 \(likely \$5.50, from \$4.00\), so .*--force"
    ):
        check_budget(cost(6.0, 3.0, preparing=1.0), request(budget=9.9))
    check_budget(cost(6.0, 3.0, preparing=1.0), request(budget=9.9, force=True))
    check_budget(cost(6.0), request())


def test_with_rungs_the_budget_is_compared_with_the_most_and_what_is_left_is_shown() -> None:
    halved = replace(cost(3.0, 3.0, 3.0), rungs=Rungs("s/1", (0.5,), 3, audit=False))
    likely = 3 * 1.5 * (3 * 0.5 + 0.5) / 3
    assert f"about ${10 - likely:.2f} is not spent" in bound_line(halved, request(budget=10.0))
    assert "not spent" not in bound_line(cost(3.0), request(budget=10.0))


def test_the_refusal_of_a_budget_says_that_runs_at_rungs_have_the_shares_of_full_runs() -> None:
    halved = replace(cost(3.0, 3.0, 3.0), rungs=Rungs("s/1", (0.5,), 3, audit=False))
    with pytest.raises(SweepError, match=r"this may cost \$9.00.*only \$3.00. But each run .* share of a full run"):
        check_budget(halved, request(budget=8.0))
    with pytest.raises(SweepError, match=r"share is spent\.$"):
        check_budget(cost(3.0, 3.0, 3.0), request(budget=8.0))
    assert "the share of a run that stops at a rung goes to no other run" in bound_line(halved, request(budget=10.0))
    assert "no other run" not in bound_line(cost(3.0), request(budget=10.0))


def test_what_is_left_of_a_budget_is_shown_when_its_cost_is_known(store: Store) -> None:
    runs = [run({"learning_rate": rate}) for rate in (1.0, 2.0)]
    finish_run(store, runs[0], {0: 2.0})
    planned = plan(runs, store)  # the first was done before
    rows = compare_sweep(store, open_sweep(store, runs).sweep)

    def left(first: float | None, second: float | None, budget: float | None = 10.0) -> str:
        paid = dict(zip((one.key for one in runs), (first, second), strict=True))
        return left_line(planned, request(budget=budget), [replace(row, dollars=paid[row.key]) for row in rows])

    assert left(7.0, 2.5) == "Left of the budget: $7.50 of $10.00, not counting the cost of preparing."
    assert left(None, 12.0).startswith("Left of the budget: $0.00 of")
    assert left(7.0, None) == left(7.0, 2.5, None) == ""


def test_an_unknown_cost_is_not_refused_and_what_preparing_alone_may_take_is() -> None:
    check_budget(cost(None, 100.0), request(budget=1.0))
    with pytest.raises(SweepError, match="preparing the data alone"):
        check_budget(cost(None, preparing=2.0), request(budget=1.0))


@pytest.mark.parametrize(
    ("words", "executor", "says"),
    [
        ({"budget": 40}, "local", "executor=local rents nothing"),
        ({"budget": -1}, "modal", "more than 0"),
        ({"budget": True}, "modal", "US dollars"),
        ({"budget": math.inf}, "modal", "budget=inf: expected US dollars"),
        ({"confirm_above": "much"}, "modal", "confirm_above=much"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(words: dict[str, Any], executor: str, says: str) -> None:
    with pytest.raises(SweepError, match=says):
        check_budget_options(ExecutorChoice(executor), request(**words))


def test_the_budget_is_shared_in_proportion_to_the_upper_estimates(store: Store) -> None:
    runs = [run({"seed": seed}) for seed in (1, 2)]
    planned = plan(runs, store)
    keyed = cost(6.0, 2.0, preparing=1.0)
    keyed = PlanCost(
        tuple(
            RunCost(one.key, dollars=was.dollars, dollars_s=was.dollars_s)
            for one, was in zip(runs, keyed.runs, strict=True)
        ),
        NOTHING, keyed.preparing, None, 1, None,
    )  # fmt: skip
    shares = [one.step.share for one in with_shares(planned, keyed, request(budget=9.0)).runs]
    assert [(one.dollars, one.seconds) for one in shares if one] == [(6.0, pytest.approx(60.0)), (2.0, 20.0)]
    assert [one.step.share for one in with_shares(planned, keyed, request()).runs] == [None, None]
    assert [one.run.key for one in with_shares(planned, keyed, request(budget=9.0)).runs] == [one.key for one in runs]


def test_where_one_estimate_is_unknown_all_have_equal_shares(store: Store) -> None:
    runs = [run({"seed": seed}) for seed in (1, 2)]
    parts = (RunCost(runs[0].key, dollars_s=0.1), RunCost(runs[1].key, dollars=Range.exactly(5.0), dollars_s=0.1))
    shares = with_shares(plan(runs, store), PlanCost(parts, NOTHING, NOTHING, None, 1, None), request(budget=8.0)).runs
    assert [one.step.share and one.step.share.dollars for one in shares] == [4.0, 4.0]


def test_the_bound_is_printed_with_the_boot_that_each_attempt_may_add() -> None:
    line = bound_line(cost(None), request(budget=4.0))
    assert "$4.00, plus $18.00 at most for the boot of each attempt at a run." in line
    assert "equal share" in line


@pytest.mark.parametrize(("answer", "launches"), [("y", True), ("Yes ", True), ("", False), ("n", False)])
def test_above_a_sum_the_user_is_asked(answer: str, launches: bool) -> None:
    requested: list[str] = []

    def ask() -> str:
        requested.append(answer)
        return answer

    if launches:
        confirm(cost(20.0), request(confirm_above=10), on_terminal=True, ask=ask)
    else:
        with pytest.raises(SweepError, match="Nothing was started"):
            confirm(cost(20.0), request(confirm_above=10), on_terminal=True, ask=ask)
    assert requested == [answer]


def test_below_it_or_with_yes_there_is_no_question_and_without_a_terminal_it_is_refused() -> None:
    for words in ({"confirm_above": 20.0}, {"confirm_above": None}, {"confirm_above": 1.0, "confirmed": True}):
        confirm(cost(20.0), request(**words), on_terminal=False)
    with pytest.raises(SweepError, match="add --yes"):
        confirm(cost(20.0), request(confirm_above=19.9), on_terminal=False)


def test_the_runs_that_may_follow_in_a_search_are_part_of_the_question_at_its_beginning() -> None:
    search = request(confirm_above=20.0, round=SearchRound(further=3))
    with pytest.raises(SweepError, match=r"may cost \$22.00"):
        confirm(with_further(cost(2.0, 5.0), search), search, on_terminal=False)
    confirm(cost(2.0, 5.0), search, on_terminal=False)


def test_a_plan_of_a_search_says_what_may_follow_and_that_its_command_has_to_stay_alive(store: Store) -> None:
    round_ = SearchRound(further=3, beyond=("learning_rate=0.1", "learning_rate=0.4"))
    requested = request(round=round_, search=SearchChoice(SearchMethod.COORDINATE))
    launch = Launch(
        (), requested, ExecutorChoice("modal"), store, store, "", Preflight((), Verdicts(None, "")), cost=cost(2.0, 5.0)
    )
    first, second = further_lines(launch)
    assert "at most 3 further runs in later rounds" in first
    assert "one of them is learning_rate=0.1 or learning_rate=0.4; all together $11.00" in first
    assert "has to stay alive" in second
    assert further_lines(replace(launch, request=replace(requested, round=SearchRound()))) == [
        "search  no further runs follow"
    ]
