"""The runs of a sweep -> the statistics that its report draws: effects of parameters, and losses against cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runner.compare.even_dollars import even_dollars
from runner.compare.params import show_value, show_values
from runner.compare.ranking import Row
from runner.html_report.curves import rounded
from runner.html_report.effects import effect, interaction, pareto, strength
from runner.html_report.words import ranked_groups
from runner.store.run_state import RunStatus


@dataclass(frozen=True, slots=True)
class _ComparableRuns:
    """Runs that compare, and the losses by which they do."""

    rows: Sequence[Row]
    losses: Sequence[float]
    rung_step: int | None = None
    """Of rung 1, if the losses are those there; None for final losses."""


def analysis(rows: Sequence[Row]) -> dict[str, Any]:
    """For the largest set of runs with the same held-out rows: the effects, and the price of the finished runs."""
    several = len({row.eval_fingerprint for row in rows}) > 1
    return _effects(_measured(rows), several=several) | _price(_finished(rows))


def _finished(rows: Sequence[Row]) -> Sequence[Row]:
    return max(ranked_groups(rows), key=len, default=[])


def _measured(rows: Sequence[Row]) -> _ComparableRuns:
    """If runs have stopped at a rung, the finished ones are the best few, which hide what a parameter does. At rung 1,
    all compare."""
    if any(row.status is RunStatus.AT_RUNG for row in rows):
        found = [(row, one) for row in rows for one in row.rungs[:1] if one.rung == 1 and one.loss is not None]
        alike = Counter((row.eval_fingerprint, one.step) for row, one in found)
        if alike:
            most = alike.most_common(1)[0][0]
            found = [(row, one) for row, one in found if (row.eval_fingerprint, one.step) == most]
            return _ComparableRuns([row for row, _ in found], [one.loss or 0.0 for _, one in found], rung_step=most[1])
    finished = _finished(rows)
    return _ComparableRuns(finished, [row.final or 0.0 for row in finished])


def _effects(measured: _ComparableRuns, *, several: bool) -> dict[str, Any]:
    """`several`: whether the report has runs with other held-out rows."""
    rows = measured.rows
    points = [(row.params, value) for row, value in zip(rows, measured.losses, strict=True)]
    names = list(rows[0].params) if rows else []
    varied = [name for name in names if len(set(show_values([row.params.get(name) for row in rows]))) > 1]
    effects = sorted((effect(name, points, show_value) for name in varied), key=strength, reverse=True)
    return {
        "measured": [row.key for row in rows],
        "losses": [rounded(value) for value in measured.losses],
        "rung_step": measured.rung_step,
        "rows": (rows[0].eval_fingerprint or "")[:8] if rows and several else "",
        "effects": [one | {"importance": rounded(strength(one))} for one in effects],
        "interaction": interaction(effects, points, show_value),
    }


def _price(rows: Sequence[Row]) -> dict[str, Any]:
    priced = bool(rows) and all(row.dollars is not None for row in rows)
    even = even_dollars(rows)
    costs = [even[row.key] if priced else row.seconds for row in rows]
    known = [index for index, cost in enumerate(costs) if cost is not None]
    front = pareto([costs[index] or 0.0 for index in known], [rows[index].final or 0.0 for index in known])
    return {
        "keys": [row.key for row in rows],
        "cost": "dollars" if priced else "seconds",
        "costs": [rounded(cost) for cost in costs],
        "even": priced and [*even.values()] != [row.dollars for row in rows],
        "front": [rows[known[index]].key for index in front],
    }
