"""Before dollars are spent: a budget that a plan must fit and that is shared out to its runs, and a question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from modal_app.store.step import Share
from runner.console import question
from runner.cost.spent import money
from runner.cost.types import Range
from runner.errors import SweepError
from runner.estimate.plan import PlanCost, RunCost
from runner.estimate.predict import BOOT_MODAL
from runner.types import ExecutorChoice, Plan, PlannedRun, Request


def check_budget_options(choice: ExecutorChoice, request: Request) -> None:
    """Raises SweepError for a budget that is none, or that nothing could spend."""
    for name, value in (("budget", request.budget), ("confirm_above", request.confirm_above)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise SweepError(f"{name}={value}: expected US dollars, more than 0, or null.")
    if request.budget is not None and choice.type != "modal":
        raise SweepError(
            f"budget={request.budget:g}: it caps the dollars of executor=modal, and executor={choice.type} rents "
            "nothing. Leave it out, or choose executor=modal."
        )


def check_budget(cost: PlanCost, request: Request) -> None:
    """Raises SweepError where the upper end of the estimate is above the budget, unless forced."""
    if reason := over_budget(cost, request):
        raise SweepError(reason)


def over_budget(cost: PlanCost, request: Request) -> str:
    """Why the budget refuses this; empty when it does not."""
    budget, dollars = request.budget, cost.dollars
    if budget is None or request.force:
        return ""
    if cost.preparing is not None and cost.preparing.high >= budget:
        return (
            f"budget={budget:g}: preparing the data alone may take {money(cost.preparing.high)} of it, so nothing was "
            "started. Raise it; --force launches all the same."
        )
    if dollars is not None and dollars.high > budget:
        return (
            f"budget={budget:g}: this may cost {_at_most(dollars)}, so nothing was started. Ask for fewer or shorter "
            "runs, or raise it; --force launches all the same, and stops each run when its share is spent."
        )
    return ""


def with_shares(plan: Plan, cost: PlanCost, request: Request) -> Plan:
    """The plan with what each run may take of the budget: in proportion to its upper estimate, equal parts where any is
    unknown. What preparing may take is set aside first. The plan as it is without a budget."""
    if request.budget is None or not cost.runs:
        return plan
    left = request.budget - (cost.preparing.high if cost.preparing else 0.0)
    left = left if left > 0 else request.budget
    shares = dict(zip((one.key for one in cost.runs), _split(left, cost), strict=True))
    by_key = {one.key: one for one in cost.runs}
    runs = tuple(
        _with_share(planned, shares[planned.run.key], by_key[planned.run.key]) if planned.run.key in shares else planned
        for planned in plan.runs
    )
    return replace(plan, runs=runs)


def bound_line(cost: PlanCost, request: Request) -> str:
    """What a budget promises, for people."""
    assert request.budget is not None
    rents = [one.dollars_s for one in cost.runs if one.dollars_s is not None]
    boots = [(one.prediction.boot.high if one.prediction else BOOT_MODAL.high) for one in cost.runs]
    boot = max(rents, default=0.0) * max(boots, default=0.0)
    unknown = "" if cost.dollars is not None else "; what it will cost is not known, so each run has an equal share"
    return (
        f"budget  {money(request.budget)}, and for each attempt at a run one boot more, {money(boot)} at most: a run "
        f"is stopped with a checkpoint when its share is spent; preparing is counted, not stopped{unknown}"
    )


def confirm(cost: PlanCost, request: Request, *, on_terminal: bool, ask: Callable[[], str] = input) -> None:
    """Ask before more than `confirm_above` dollars are spent. Raises SweepError without a yes."""
    dollars = cost.dollars
    if request.confirmed or request.confirm_above is None or dollars is None or dollars.high <= request.confirm_above:
        return
    told = f"This may cost {_at_most(dollars)}"
    question.confirm(
        f"{told}. Launch it?",
        alone=f"{told}, more than confirm_above={request.confirm_above:g}, and nobody is here to be asked: add --yes.",
        refused="Nothing was started.",
        on_terminal=on_terminal,
        ask=ask,
    )


def _at_most(dollars: Range) -> str:
    low, likely, high = (money(one) for one in (dollars.low, dollars.likely, dollars.high))
    return high if low == high else f"{high} (likely {likely}, from {low})"


def _split(dollars: float, cost: PlanCost) -> list[float]:
    upper = [one.dollars.high if one.dollars is not None else 0.0 for one in cost.runs]
    if not all(upper):
        upper = [1.0] * len(upper)
    return [dollars * one / sum(upper) for one in upper]


def _with_share(planned: PlannedRun, dollars: float, cost: RunCost) -> PlannedRun:
    if not cost.dollars_s:
        return planned  # without a price nobody knows when it is spent
    return replace(planned, step=replace(planned.step, share=Share(dollars, dollars / cost.dollars_s)))
