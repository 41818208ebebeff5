"""A plan's cost as text and as what `--json` prints."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modal_app.store.rungs import named
from runner.console.numbers import counted
from runner.cost.prices import CPU, MEMORY, Rates
from runner.cost.spent import money
from runner.cost.types import Phases, Range
from runner.estimate.types import PlanCost, RunCost, Saving
from runner.preflight.findings import which_runs

WORTH_EXPLAINING_S = 60.0
"""For a shorter run, the plan does not say what its time is spent on."""


@dataclass(frozen=True, slots=True)
class PrintedRunCost:
    """The cost of a run in the output of `plan --json`. Null is unknown, or for dollars that nothing is rented."""

    key: str
    steps: int | None
    steps_from: str | None
    """Where the number of steps comes from."""
    seconds: Range | None
    """Of its worker."""
    cpu_seconds: float | None
    phases: Phases | None
    """Likely seconds."""
    rented_seconds: Range | None
    boots: float | None
    """How many boots of a container these include. Below 1 where containers do several runs: the mean over the runs."""
    dollars: Range | None
    fewer_saves: Saving | None
    """What the run would cost with fewer checkpoints, if most of its time is spent on writing them."""
    healed: str | None
    """The micro batch that the cost is of, as an override, if on_oom=halve has to come to it first."""
    basis: str | None
    """What the prediction is based on."""
    reason: str
    """Why it is unknown."""


@dataclass(frozen=True, slots=True)
class HalvedCost:
    """If as few runs as possible go on from each rung: the best, and those of the audit."""

    share: float
    """Of the steps."""
    audited: int
    """How many of the runs never stop."""
    seconds: Range | None
    """The sum over all runs."""
    dollars: Range | None
    wall_seconds: Range | None
    """Until all runs have ended; at least as long as one run that goes to its end."""


@dataclass(frozen=True, slots=True)
class PrintedCost:
    """The cost in the output of `plan --json`."""

    runs: tuple[PrintedRunCost, ...]
    """Those that are still to be trained."""
    seconds: Range | None
    """The sum over all runs."""
    preparing_seconds: Range
    preparing_dollars: Range | None
    dollars: Range | None
    wall_seconds: Range | None
    """Until all runs have ended."""
    at_a_time: int
    """Runs side by side."""
    rates: Rates | None
    """Null if nothing is rented."""
    halved: HalvedCost | None = None
    """With rungs, the cost if as few runs as possible go on. All other figures are of training every run to its end."""


def cost_lines(cost: PlanCost, names: Mapping[str, str]) -> list[str]:
    """One line for equal runs, then the total. `names`: run key -> name."""
    alike: dict[str, list[str]] = {}
    for one in cost.runs:
        alike.setdefault(_of_run(one), []).append(names[one.key])
    lines = [f"cost    {text}{which_runs(runs, len(cost.runs))}" for text, runs in alike.items()]
    return [*lines, *_total(cost)]


def printed_cost(cost: PlanCost) -> PrintedCost:
    return PrintedCost(
        runs=tuple(_printed_run(one, cost) for one in cost.runs),
        seconds=cost.seconds,
        preparing_seconds=cost.preparing_s,
        preparing_dollars=cost.preparing,
        dollars=cost.dollars,
        wall_seconds=cost.wall,
        at_a_time=cost.at_a_time,
        rates=cost.rates,
        halved=_printed_halved(cost),
    )


def _printed_halved(cost: PlanCost) -> HalvedCost | None:
    if cost.rungs is None:
        return None
    return HalvedCost(
        share=round(cost.least.steps, 4),
        audited=cost.audited,
        seconds=cost.least_seconds,
        dollars=cost.least_dollars,
        wall_seconds=_least_wall(cost),
    )


def _least_wall(cost: PlanCost) -> Range | None:
    if cost.wall is None:
        return None
    least, runs = cost.wall.scaled(cost.least.steps), [one.prediction.rented for one in cost.runs if one.prediction]
    return Range(
        max(least.low, *(one.low for one in runs)),
        max(least.likely, *(one.likely for one in runs)),
        max(least.high, *(one.high for one in runs)),
    )


def _printed_run(one: RunCost, cost: PlanCost) -> PrintedRunCost:
    prediction, length = one.prediction, one.length
    return PrintedRunCost(
        key=one.key,
        steps=length.steps if length else None,
        steps_from=length.source if length else None,
        seconds=prediction.seconds if prediction else None,
        cpu_seconds=prediction.cpu_s if prediction else None,
        phases=prediction.phases if prediction else None,
        rented_seconds=prediction.rented if prediction and cost.rates else None,
        boots=prediction.boots if prediction and cost.rates else None,
        dollars=one.dollars,
        fewer_saves=one.fewer_saves,
        healed=one.healed or None,
        basis=prediction.basis if prediction else None,
        reason=one.reason,
    )


def spread(range_: Range, form: Any) -> str:
    """`$1.20 ($0.60 to $1.80)`; one figure if low and high look the same."""
    low, likely, high = form(range_.low), form(range_.likely), form(range_.high)
    return str(likely) if low == high else f"{likely} ({low} to {high})"


def span(seconds: float) -> str:
    """Seconds for people, rounded.

    >>> span(4.2), span(95), span(5400), span(90000)
    ('4.2 s', '95 s', '90 min', '25 h')
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.2g} h"


def _of_run(one: RunCost) -> str:
    if one.prediction is None:
        steps = f"{_steps(one)}; " if one.length else ""
        return f"unknown: {steps}{one.reason}"
    price = f"{spread(one.dollars, money)}, " if one.dollars else ""
    no_price = f" ({one.reason})" if one.reason else ""
    seconds = one.prediction.rented if one.dollars else one.prediction.seconds
    healed = f" with {one.healed}, after the tries that are out of memory" if one.healed else ""
    basis = f"from {one.prediction.basis}{no_price}{_spent_on(one)}"
    return f"{price}{spread(seconds, span)} a run{healed}; {_steps(one)}; {basis}"


def _spent_on(one: RunCost) -> str:
    """What the time is spent on, unless that is mostly training, or too little to matter."""
    assert one.prediction is not None
    phases, boot = one.prediction.phases, one.prediction.booting.likely
    every = phases.total + boot
    parts = {"saving": phases.save, "evaluating": phases.eval, "starting": phases.start + boot}
    if every < WORTH_EXPLAINING_S or phases.train >= max(parts.values()):
        return ""
    largest_first = sorted({**parts, "training": phases.train}.items(), key=lambda part: -part[1])
    shares = ", ".join(f"{what} {share:.0%}" for what, part in largest_first if (share := part / every) >= 0.01)
    return f"; spent on: {shares}{_fewer_saves(one)}"


def _fewer_saves(one: RunCost) -> str:
    if one.fewer_saves is None or one.length is None:
        return ""
    then = one.fewer_saves
    amount = span(then.rented_s) if then.dollars is None else money(then.dollars)
    overrides = then.override.split()
    left_out = "; the second word leaves save_steps out" if len(overrides) > 1 else ""
    return f" ({one.length.saves} saves; with one an epoch about {amount}: {shlex.join(overrides)}{left_out})"


def _steps(one: RunCost) -> str:
    assert one.length is not None
    return f"{counted(one.length.steps, 'step')} ({one.length.source})"


def _total(cost: PlanCost) -> list[str]:
    if not cost.runs:
        return []
    lines = []
    if cost.dollars is not None and cost.preparing is not None and cost.rates is not None:
        items = {CPU, MEMORY, *(name for one in cost.runs for name in one.cards)}
        included = [f"{money(cost.preparing.likely)} for preparing"] if cost.preparing.likely else []
        included += [_boots(cost)] if cost.boots else []
        including = f", including {' and '.join(included)}" if included else ""
        lines.append(f"total   {spread(cost.dollars, money)}{including}; rates: {cost.rates.sources(items)}")
    elif cost.rates is not None:
        lines.append("total   unknown, since the cost of a run is unknown")
    if cost.wall is not None:
        lines.append(f"time    {spread(cost.wall, span)} until all runs have ended, {cost.at_a_time} at a time")
    return [*lines, _rungs_line(cost)] if cost.rungs else lines


def _boots(cost: PlanCost) -> str:
    """The boots of the containers that do several runs, for people."""
    each = max((one.prediction.boot.likely for one in cost.runs if one.prediction), default=0.0)
    return f"{counted(cost.boots, 'boot')} of {span(each)}"


def _rungs_line(cost: PlanCost) -> str:
    """What it costs if as few runs as possible go on."""
    assert cost.rungs is not None
    if not cost.least.steps:
        return (
            "rungs   most likely nothing of this is spent: all of these runs have stopped at a rung, and a run "
            "continues only if it is among the best now"
        )
    amounts = [spread(cost.least_dollars, money)] if cost.least_dollars else []
    amounts += [f"{spread(cost.least_seconds, span)} of work"] if cost.least_seconds else []
    return (
        f"rungs   at least {', '.join([*amounts, f'{100 * cost.least.steps:.0f} % of the steps'])}: at "
        f"{named(cost.rungs.fractions)} of the steps, the best 1 in {cost.rungs.eta} continues{_saves_nothing(cost)}. "
        "More may continue: runs that are not clearly worse, and runs that were among the best when they reached the "
        f"rung.{_audit(cost)}"
    )


def _saves_nothing(cost: PlanCost) -> str:
    if cost.dollars is None or cost.least_dollars is None or cost.least_dollars.likely < cost.dollars.likely:
        return ""
    return "; stopping saves no dollars here, since starting takes most of a run"


def _audit(cost: PlanCost) -> str:
    assert cost.rungs is not None
    if not cost.rungs.audit:
        return ""
    if not cost.audited:
        return " No run is audited, so the results will not show whether a stopped run would have been better"
    return f" {cost.audited} of the runs {'is' if cost.audited == 1 else 'are'} audited: an audited run never stops"
