"""What is known of the runs of a search's round, from the store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from modal_app.store.layout import Store
from runner.environment.verdicts import Verdicts
from runner.errors import SweepError
from runner.launch.types import Launch
from runner.preflight.stage import Preflight
from runner.request import Action, Request
from runner.search.records import RoundRuns
from runner.search.results import Results, read_results
from runner.types import ExecutorChoice, Run
from tests.runner.builders import finish_run, log_losses, open_sweep, plan, run


def round_of(store: Store, runs: list[Run], results: Results) -> RoundRuns:
    experiments = tuple(one.experiment for one in runs)
    request = Request(Action.PLAN, "search", None, json=False)
    preflight = Preflight(experiments, Verdicts(None, ""))
    launch = Launch(experiments, request, ExecutorChoice("local"), store, store, "", preflight, tuple(runs))
    return RoundRuns((), replace(launch, plan=plan(runs, store)), results)


def test_what_all_rounds_have_cost_is_taken_from_the_budget_but_not_what_a_run_of_this_one_has(store: Store) -> None:
    done, begun = run({"learning_rate": 1e-3}), run({"learning_rate": 1e-4})
    finish_run(store, done, {9: 1.0})
    results = Results({}, read_results(store, "none", "eval_loss").metric, {done.key: 2.0, begun.key: 0.5})
    assert round_of(store, [done, begun], results).dollars_left(5.0) == 3.0
    assert round_of(store, [begun], results).dollars_left(5.0) == 3.0
    assert round_of(store, [done], results).dollars_left(5.0) == 2.5
    first = [round_of(store, [done, begun], results).is_over(budget, is_first=True) for budget in (5.0, 2.0, 1.5)]
    assert first == [False, True, True], "no launch is requested with a budget of nothing, or of less"


def test_a_metric_has_its_other_names_and_one_of_which_more_is_better_is_turned_around(store: Store) -> None:
    one = run({"learning_rate": 1e-3})
    finish_run(store, one, {9: 1.0})
    log_losses(store, one, {9: 3.5}, name="eval_ppl")
    sweep = open_sweep(store, [one]).sweep
    assert read_results(store, sweep, "eval_perplexity").loss([one.key]) == 3.5
    assert read_results(store, sweep, "eval_ppl", maximize=True).loss([one.key]) == -3.5


def test_a_metric_that_no_run_has_is_refused(store: Store) -> None:
    one = run({"learning_rate": 1e-3})
    finish_run(store, one, {9: 1.0})
    sweep = open_sweep(store, [one]).sweep
    with pytest.raises(SweepError, match="None of these runs has logged eval_los"):
        read_results(store, sweep, "eval_los")


def test_losses_on_different_held_out_rows_are_not_compared(store: Store) -> None:
    runs = [run({"learning_rate": 1e-3}), run({"learning_rate": 1e-4, "sequence_len": 64})]
    for place, one in enumerate(runs):
        finish_run(store, one, {9: 1.0}, eval_fingerprint=f"rows{place}")
    sweep = open_sweep(store, runs).sweep
    with pytest.raises(SweepError, match="evaluated on different held-out rows"):
        read_results(store, sweep, "eval_loss").refuse_other_rows()
