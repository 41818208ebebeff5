"""Plan -> price: what it will take and cost, what the budget says to that, and who is asked before it is spent."""

from __future__ import annotations

import sys
from dataclasses import replace

from runner.console import terminal
from runner.estimate.plan import PlanCost, plan_cost
from runner.estimate.words import cost_lines
from runner.executors.choose import pools_of, rates_of
from runner.launch.budget import bound_line, check_budget, confirm, with_shares
from runner.launch.types import Launch
from runner.show import tables
from runner.store.stores import stores
from runner.types import Action


def price(launch: Launch) -> Launch:
    """With its cost, and its runs' shares of the budget. What rents nothing is priced for `plan` only, in hours.

    Asks Modal for its rates, and the person when it may cost more than `confirm_above`, before a launch; a plan asks
    nobody. Raises SweepError for what is too dear, or not wanted so dear.
    """
    if launch.request.action is Action.PLAN:
        return replace(launch, cost=_cost(launch, ask=False))
    if launch.on_this_machine:
        return launch
    cost = _cost(launch, ask=True)
    for line in price_lines(replace(launch, cost=cost)):
        terminal.message(line)
    check_budget(cost, launch.request)
    confirm(cost, launch.request, on_terminal=sys.stdin.isatty() and sys.stderr.isatty())
    return replace(launch, cost=cost, plan=with_shares(launch.plan, cost, launch.request))


def price_lines(launch: Launch) -> list[str]:
    """What it will take and cost, and what its budget promises, for people."""
    if launch.cost is None:
        return []
    bounded = launch.request.budget is not None and launch.cost.runs
    bound = [bound_line(launch.cost, launch.request)] if bounded else []
    return [*cost_lines(launch.cost, tables.names_of(launch.plan)), *bound]


def _cost(launch: Launch, *, ask: bool) -> PlanCost:
    rates = rates_of(launch.executor, launch.plan, launch.store, ask=ask)
    known = stores(launch.request.store)
    return plan_cost(launch.plan, launch.store, known, rates, pools_of(launch.executor, launch.plan))
