"""Before dollars are spent: a budget that limits a plan and is divided among its runs, and a question."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from modal_app.store.step import Share
from runner.compare.ranking import Row
from runner.console import question
from runner.cost.spent import money
from runner.cost.types import Range
from runner.errors import SweepError
from runner.estimate.predict import BOOT_MODAL
from runner.estimate.stops import room_of_share
from runner.estimate.types import PlanCost, RunCost
from runner.estimate.words import span
from runner.request import Request
from runner.types import ExecutorChoice, Plan, PlannedRun


def check_budget_options(choice: ExecutorChoice, request: Request) -> None:
    """Raises SweepError for an invalid budget, and for one of an executor that spends nothing."""
    for name, value in (("budget", request.budget), ("confirm_above", request.confirm_above)):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 < value < math.inf):
            raise SweepError(f"{name}={value}: expected US dollars, more than 0, or null.")
    if request.budget is not None and choice.type != "modal":
        raise SweepError(
            f"budget={request.budget:g}: it limits the dollars of executor=modal, but executor={choice.type} rents "
            "nothing. Leave it out, or choose executor=modal."
        )


def check_budget(cost: PlanCost, request: Request) -> None:
    """Raises SweepError where the upper end of the estimate is above the budget, unless forced."""
    if reason := over_budget(cost, request):
        raise SweepError(reason)


def with_further(cost: PlanCost, request: Request) -> PlanCost:
    """With the runs that may follow in later rounds of a search, each like the dearest one of this round."""
    if request.round is None or not cost.runs:
        return cost
    dearest = max(cost.runs, key=lambda one: one.dollars.high if one.dollars is not None else 0.0)
    return replace(cost, runs=(*cost.runs, *[dearest] * request.round.further))


def over_budget(cost: PlanCost, request: Request) -> str:
    """Why the plan is over the budget; empty when it is not."""
    budget, dollars = request.budget, cost.dollars
    if budget is None or request.force:
        return ""
    if cost.preparing is not None and cost.preparing.high >= budget:
        return (
            f"budget={budget:g}: preparing the data alone may take {money(cost.preparing.high)} of it, so nothing was "
            "started. Raise it; --force launches anyway."
        )
    if dollars is not None and dollars.high > budget:
        return (
            f"budget={budget:g}: this may cost {_at_most(dollars)}, so nothing was started. Ask for fewer or shorter "
            f"runs, or raise it; --force launches anyway, and stops each run when its share is spent.{_rungs(cost)}"
        )
    return ""


def _rungs(cost: PlanCost) -> str:
    """Why a budget has to cover all runs, though most of them stop early."""
    if cost.rungs is None or cost.least_dollars is None:
        return ""
    return (
        f" If runs stop at the rungs, it may cost only {money(cost.least_dollars.likely)}. But each run that goes "
        "on needs the share of a full run, and gets nothing of the shares that stopped runs leave. So with "
        "--force, the best runs may be stopped before they end."
    )


def with_shares(plan: Plan, cost: PlanCost, request: Request) -> Plan:
    """The plan with each run's share of the budget: in proportion to its upper estimate, or equal if an estimate is
    unknown. The upper estimate of preparing is set aside first. Without a budget, the plan is unchanged."""
    if request.budget is None or not cost.runs:
        return plan
    shares = _shares(request.budget, cost)
    by_key = {one.key: one for one in cost.runs}
    runs = tuple(
        _with_share(planned, shares[planned.run.key], by_key[planned.run.key]) if planned.run.key in shares else planned
        for planned in plan.runs
    )
    return replace(plan, runs=runs)


def bound_line(cost: PlanCost, request: Request) -> str:
    """What a budget guarantees, as a line for people."""
    assert request.budget is not None
    rents = [one.dollars_s for one in cost.runs if one.dollars_s is not None]
    boots = [(one.prediction.boot.high if one.prediction else BOOT_MODAL.high) for one in cost.runs]
    attempt = "each attempt at a run that starts a container" if cost.boots else "each attempt at a run"
    boot = max(rents, default=0.0) * max(boots, default=0.0)
    unknown = "" if cost.dollars is not None else "; the cost is unknown, so each run has an equal share"
    least = cost.least_dollars if cost.rungs else None
    left = request.budget - least.likely if least else 0.0
    rest = f"; if as few runs as possible go on from the rungs, about {money(left)} is not spent" if left > 0 else ""
    shares = "; the share of a run that stops at a rung goes to no other run" if cost.rungs else ""
    late = _longest_late_save(request.budget, cost)
    stopped = "stopped when its share is spent" if late else "stopped with a checkpoint when its share is spent"
    since = f", without a new checkpoint, since that takes about {span(late)} to write" if late else ""
    return (
        f"budget  {money(request.budget)}, plus {money(boot)} at most for the boot of {attempt}. A run is "
        f"{stopped}{since}{shares}; preparing is counted, but not stopped{unknown}{rest}"
    )


def left_line(plan: Plan, request: Request, rows: Sequence[Row]) -> str:
    """What the runs of a launch that is over have left of its budget, as a line for people; empty if that is unknown.
    `plan`: as it was when the launch began."""
    dollars = {row.key: row.dollars for row in rows}
    spent = [dollars.get(one.run.key) for one in plan.pending]
    known = [one for one in spent if one is not None]
    if request.budget is None or not known or len(known) < len(spent):
        return ""
    left = max(0.0, request.budget - sum(known))
    return f"Left of the budget: {money(left)} of {money(request.budget)}, not counting the cost of preparing."


def confirm(cost: PlanCost, request: Request, *, on_terminal: bool, ask: Callable[[], str] = input) -> None:
    """Ask before more than `confirm_above` dollars are spent. Raises SweepError without a yes."""
    dollars = cost.dollars
    if request.confirmed or request.confirm_above is None or dollars is None or dollars.high <= request.confirm_above:
        return
    cost_text = f"This may cost {_at_most(dollars)}"
    question.confirm(
        f"{cost_text}. Launch it?",
        no_terminal=f"{cost_text}, more than confirm_above={request.confirm_above:g}, and there is no terminal to ask "
        "on: add --yes.",
        refused="Nothing was started.",
        on_terminal=on_terminal,
        ask=ask,
    )


def _at_most(dollars: Range) -> str:
    low, likely, high = (money(one) for one in (dollars.low, dollars.likely, dollars.high))
    return high if low == high else f"{high} (likely {likely}, from {low})"


def _shares(budget: float, cost: PlanCost) -> dict[str, float]:
    """Run key -> dollars."""
    left = budget - (cost.preparing.high if cost.preparing else 0.0)
    left = left if left > 0 else budget
    return dict(zip((one.key for one in cost.runs), _split(left, cost), strict=True))


def _longest_late_save(budget: float, cost: PlanCost) -> float:
    """Seconds of the longest checkpoint that cannot be written after the request to stop; 0 if all can."""
    shares = _shares(budget, cost)
    rented = [(one, one.prediction.save_s) for one in cost.runs if one.prediction and one.dollars_s]
    late = [save_s for one, save_s in rented if save_s > room_of_share(shares[one.key] / (one.dollars_s or math.inf))]
    return max(late, default=0.0)


def _split(dollars: float, cost: PlanCost) -> list[float]:
    upper = [_upper(one) for one in cost.runs]
    if not all(upper):
        upper = [1.0] * len(upper)
    return [dollars * one / sum(upper) for one in upper]


def _upper(one: RunCost) -> float:
    """Its upper estimate, as if its container booted for it: where containers do several runs, any run may be the first
    of one."""
    if one.dollars is None or one.prediction is None:
        return one.dollars.high if one.dollars is not None else 0.0
    missing = max(0.0, 1.0 - one.prediction.boots)
    return one.dollars.high + missing * one.prediction.boot.high * (one.dollars_s or 0.0)


def _with_share(planned: PlannedRun, dollars: float, cost: RunCost) -> PlannedRun:
    if not cost.dollars_s:
        return planned  # without a price, it is unknown when the share is spent
    return replace(planned, step=replace(planned.step, share=Share(dollars, dollars / cost.dollars_s)))
