"""A plan's cost as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from runner.cost.prices import CPU, MEMORY
from runner.cost.spent import money
from runner.cost.types import Range
from runner.estimate.plan import PlanCost, RunCost

WORTH_EXPLAINING_S = 60.0
"""Of a shorter run, nobody asks what its time is spent on."""


def cost_lines(cost: PlanCost, names: Mapping[str, str]) -> list[str]:
    """One line for equal runs, then the total. `names`: run key -> name."""
    alike: dict[str, list[str]] = {}
    for one in cost.runs:
        alike.setdefault(_of_run(one), []).append(names[one.key])
    lines = [f"cost    {text}{_which(runs, len(cost.runs))}" for text, runs in alike.items()]
    return [*lines, *_total(cost)]


def cost_json(cost: PlanCost) -> dict[str, Any]:
    """Seconds and dollars as ranges; null means unknown, or, for dollars, that nothing is rented."""
    return {
        "runs": [
            {
                "key": one.key,
                "steps": one.length and one.length.steps,
                "steps_from": one.length and one.length.source,
                "seconds": one.prediction and asdict(one.prediction.seconds),
                "cpu_seconds": one.prediction and one.prediction.cpu_s,
                "phases": one.prediction and asdict(one.prediction.phases),
                "rented_seconds": one.prediction and cost.rates and asdict(one.prediction.rented),
                "dollars": one.dollars and asdict(one.dollars),
                "fewer_saves": one.fewer_saves and asdict(one.fewer_saves),
                "basis": one.prediction and one.prediction.basis,
                "reason": one.reason,
            }
            for one in cost.runs
        ],
        "seconds": cost.seconds and asdict(cost.seconds),
        "preparing_seconds": asdict(cost.preparing_s),
        "preparing_dollars": cost.preparing and asdict(cost.preparing),
        "dollars": cost.dollars and asdict(cost.dollars),
        "wall_seconds": cost.wall and asdict(cost.wall),
        "at_a_time": cost.at_a_time,
        "rates": cost.rates and cost.rates.as_json(),
    }


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
    return f"{price}{spread(seconds, span)} a run; {_steps(one)}; from {one.prediction.basis}{no_price}{_spent_on(one)}"


def _spent_on(one: RunCost) -> str:
    """What the time is spent on, unless that is mostly training, or so little that nobody minds."""
    assert one.prediction is not None
    phases, boot = one.prediction.phases, one.prediction.boot.likely
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
    return f" ({one.length.saves} saves; with {then.override} about {amount})"


def _steps(one: RunCost) -> str:
    assert one.length is not None
    return f"{one.length.steps} step{'' if one.length.steps == 1 else 's'} ({one.length.source})"


def _total(cost: PlanCost) -> list[str]:
    if not cost.runs:
        return []
    lines = []
    if cost.dollars is not None and cost.preparing is not None and cost.rates is not None:
        items = {CPU, MEMORY, *(name for one in cost.runs for name in one.cards)}
        preparing = f", including {money(cost.preparing.likely)} for preparing" if cost.preparing.likely else ""
        lines.append(f"total   {spread(cost.dollars, money)}{preparing}; rates: {cost.rates.told(items)}")
    elif cost.rates is not None:
        lines.append("total   unknown, since the cost of a run is unknown")
    if cost.wall is not None:
        lines.append(f"time    {spread(cost.wall, span)} until all runs have ended, {cost.at_a_time} at a time")
    return lines


def _which(runs: Sequence[str], total: int) -> str:
    if len(runs) == total:
        return ""
    return f"  ({runs[0]})" if len(runs) == 1 else f"  ({len(runs)} runs, first {runs[0]})"
