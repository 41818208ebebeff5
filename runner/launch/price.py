"""Plan -> price: the time and dollars that it will take, the check of the budget, and the question before a launch."""

from __future__ import annotations

import sys
from dataclasses import replace

from runner.console import terminal
from runner.console.numbers import counted
from runner.cost.spent import money
from runner.estimate.disk import disk_findings, disk_line
from runner.estimate.host_memory import host_findings
from runner.estimate.plan import plan_cost
from runner.estimate.stops import stops_lines, time_findings
from runner.estimate.types import PlanCost
from runner.estimate.words import cost_lines, span, spread
from runner.executors.choose import modal_containers, modal_disk, pools_of, rates_of
from runner.launch.budget import bound_line, check_budget, confirm, with_further, with_shares
from runner.launch.schema import refuse_blocked
from runner.launch.types import Launch
from runner.request import Action
from runner.show import tables
from runner.show.headway import ExpectedSeconds
from runner.store.stores import stores


def price(launch: Launch) -> Launch:
    """The launch with its cost, and its runs' shares of the budget. On this machine, only `plan` is priced, in hours.

    Before a launch, ask Modal for its rates, and ask the user if it may cost more than `confirm_above`; `plan` does
    neither. Raises SweepError if a run does not fit its container, if it may cost more than the budget, or if the
    answer is not yes.
    """
    if launch.request.action is Action.PLAN:
        return _examined(replace(launch, cost=_cost(launch, ask=False)))
    if launch.on_this_machine:
        return launch
    cost = _cost(launch, ask=True)
    launch = _examined(replace(launch, cost=cost))
    for line in (*price_lines(launch), *container_lines(launch)):
        terminal.message(line)
    refuse_blocked(launch)
    check_budget(cost, launch.request)
    confirm(with_further(cost, launch.request), launch.request, on_terminal=sys.stdin.isatty() and sys.stderr.isatty())
    return replace(launch, plan=with_shares(launch.plan, cost, launch.request))


def expected_of(launch: Launch) -> ExpectedSeconds:
    """What the live view corrects by what has run."""
    cost = launch.cost or _cost(launch, ask=False)
    runs = {one.key: one.prediction.seconds.likely for one in cost.runs if one.prediction}
    boots = [one.prediction.boot.likely for one in cost.runs if one.prediction]
    datasets = {key: seconds.likely for key, seconds in cost.preparing_each.items()}
    between = [one.prediction.around.likely for one in cost.runs if one.prediction]
    pools = pools_of(launch.executor, launch.plan)
    reused = {pools[one.run.key].reused for one in launch.plan.pending} == {True}
    next_s = max(between, default=0.0) if reused else None
    return ExpectedSeconds(runs | datasets, max(boots, default=0.0), cost.at_a_time, cost.least.steps, next_s)


def price_lines(launch: Launch) -> list[str]:
    """The time and dollars that it will take, and what its budget guarantees, for people."""
    if launch.cost is None:
        return []
    bounded = launch.request.budget is not None and launch.cost.runs
    bound = [bound_line(launch.cost, launch.request)] if bounded else []
    return [*cost_lines(launch.cost, tables.names_of(launch.plan)), *bound]


def further_lines(launch: Launch) -> list[str]:
    """What may follow the next round of a search, for people."""
    if launch.request.round is None or launch.cost is None:
        return []
    further = launch.request.round.further
    if not further:
        return ["search  no further runs follow"]
    total = with_further(launch.cost, launch.request)
    dollars, seconds = total.dollars, total.seconds
    parts = [spread(dollars, money)] if dollars else []
    parts += [f"{spread(seconds, span)} of work"] if seconds else []
    together = f"; all together {', '.join(parts)}" if parts else ""
    runs = counted(further, "further run")
    beyond = " or ".join(launch.request.round.beyond)
    more = f"; if the best rate is at an end of the list, one of them is {beyond}" if beyond else ""
    return [
        f"search  this is the next round; at most {runs} in later rounds, chosen by the results before{more}{together}",
        "search  the command has to stay alive until the search is over, since it chooses the runs of each round",
    ]


def _examined(launch: Launch) -> Launch:
    """The same, with what is wrong with each run's place in the plan among the findings."""
    if launch.executor.modal is not None:
        settings = launch.executor.modal
        found = [disk_findings(launch.plan, settings.disk_gib)]
        if launch.cost is not None:
            found.append(time_findings(launch.plan, launch.cost, settings.timeout_hours))
        found.append(host_findings(launch.plan, _hosts(launch), settings))
        launch.preflight.planned = [[one[run.key] for one in found if run.key in one] for run in launch.runs]
    return launch


def container_lines(launch: Launch) -> list[str]:
    """How the runs share containers on Modal, where there are fewer containers than runs, what disk each has, and which
    stops leave no time for a checkpoint."""
    disk, settings = modal_disk(launch.executor, launch.plan), launch.executor.modal
    lines = [*_reuse_lines(launch), *([disk_line(disk)] if disk and launch.plan.pending else [])]
    if settings is None or launch.cost is None:
        return lines
    return [*lines, *stops_lines(launch.plan, launch.cost, settings.timeout_hours)]


def _reuse_lines(launch: Launch) -> list[str]:
    all_of_them = modal_containers(launch.executor, launch.plan)
    why_not = "" if launch.executor.modal and launch.executor.modal.reuse else " (executor.modal.reuse=false)"
    return [
        f"reuse   {one.text(with_variant=len(all_of_them) > 1)}{why_not}"
        for one in all_of_them
        if one.containers < one.runs
    ]


def _cost(launch: Launch, *, ask: bool) -> PlanCost:
    rates = rates_of(launch.executor, launch.plan, launch.store, ask=ask)
    known = stores(launch.request.store)
    tries = launch.preflight.tries_that_fail()
    failing = {run.key: many for run, many in zip(launch.runs, tries, strict=True)} if tries else {}
    pools = pools_of(launch.executor, launch.plan)
    return plan_cost(launch.plan, launch.store, known, rates, pools, failing, _hosts(launch))


def _hosts(launch: Launch) -> dict[str, int]:
    """Run key -> bytes of host memory that it needs for offloading."""
    needed = launch.preflight.host_bytes()
    return {run.key: one for run, one in zip(launch.runs, needed, strict=True)} if needed else {}
