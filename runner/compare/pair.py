"""Two runs of any sweeps side by side: the config keys that differ, the metric's difference, where it comes from, both
curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape

from runner.compare.ranking import OBJECTIVE, Metric, Row, rows_from
from runner.compare.source import RunFacts
from runner.compare.table import columns_of, fitted, heading_of, table
from runner.compare.where_won import where_won
from runner.compare.where_words import where_lines
from runner.console import terminal
from runner.console.numbers import difference as shown_difference
from runner.console.numbers import loss
from runner.console.plot import MARKS, overlay
from runner.store.run_state import RunStatus, status_text
from runner.verdict.where import Where


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs, in the order of the request."""

    metric: str
    maximize: bool
    runs: tuple[Row, Row]
    config: Mapping[str, tuple[Any, Any]]
    """The values that differ, by dotted name; null where a run has no such key."""
    difference: float | None
    """The second's final value minus the first's; null unless both have a finite one, for the same eval fingerprint. If
    one has stopped at a rung: the same at the last rung that both have reached."""
    comparable: bool
    """Whether both are judged by the same held-out rows."""
    curves: tuple[Mapping[int, float | None], Mapping[int, float | None]]
    """The metric by step; null where it was NaN or infinite."""
    where: Where | None = None
    """Where the second is better or worse than the first, by the losses of each held-out row; null if there are none of
    both, or for another metric than the eval loss."""
    notes: tuple[str, ...] = ()
    """What is missing, in sentences."""
    version: int = 2
    rung: int | None = None
    """The rung that `difference` is of; null if it is of final values."""


def pair_of(facts: Sequence[RunFacts], metric: Metric) -> Pair:
    """Raises SweepError for a metric that neither has logged."""
    one, other = facts
    rows = {(row.store, row.key): row for row in rows_from(facts, metric)}
    first, second = (rows[found.store, found.key] for found in facts)
    comparable = first.eval_fingerprint is not None and first.eval_fingerprint == second.eval_fingerprint
    rung, losses = _values(first, second, metric)
    difference = losses[1] - losses[0] if comparable and losses and all(map(math.isfinite, losses)) else None
    where, missing = where_won(first, second, metric)
    return Pair(
        metric=metric.name,
        maximize=metric.maximize,
        runs=(first, second),
        config=_differences(one.config, other.config),
        difference=difference,
        comparable=comparable,
        curves=(one.curves.by_name.get(metric.name, {}), other.curves.by_name.get(metric.name, {})),
        where=where,
        notes=(missing,) if missing else (),
        rung=rung if difference is not None else None,
    )


def _values(first: Row, second: Row, metric: Metric) -> tuple[int | None, tuple[float, float] | None]:
    """What the runs are compared by, and at which rung if one of them has stopped: never at different steps."""
    if RunStatus.AT_RUNG not in (first.status, second.status):
        return None, None if first.final is None or second.final is None else (first.final, second.final)
    theirs = {one.step: one.loss for one in second.rungs}  # other searches have the same rung at other steps
    shared = [(one.rung, one.loss, theirs[one.step]) for one in first.rungs if one.step in theirs]
    if not shared or metric.name != OBJECTIVE:
        return None, None
    rung, one, other = shared[-1]
    return rung, None if one is None or other is None else (one, other)


def show_pair(pair: Pair, console: Console) -> None:
    metric = Metric(pair.metric, pair.maximize)
    columns, _ = fitted(columns_of(pair.runs, metric), console.width)
    marks = [(mark, row.key) for mark, row in zip(MARKS, pair.runs, strict=True)]
    console.print()
    console.print(
        table(columns, "  ".join(f"{mark} {key}" for mark, key in marks), [row.is_best for row in pair.runs]),
        crop=False,
    )
    console.print()
    for line in [*_difference_lines(pair, metric), *_config_lines(pair)]:
        terminal.say(console, line)
    first, second = pair.runs
    for line in ["", *where_lines(pair.where, (first.key, second.key))] if pair.where else []:
        terminal.say(console, line)
    for note in pair.notes:
        terminal.say(console, note)
    plot = overlay(pair.curves)
    if plot:
        console.print(f"\n{escape(heading_of(metric))} by step: {'  '.join(f'{mark} {key}' for mark, key in marks)}")
        for line in plot:
            terminal.say(console, line)


def _differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted({*one, *other})
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


def _difference_lines(pair: Pair, metric: Metric) -> list[str]:
    first, second = pair.runs
    if not pair.comparable:
        return ["These runs are evaluated on different or unknown held-out rows, so no difference is shown."]
    if pair.difference is None and RunStatus.AT_RUNG in (first.status, second.status):
        return ["One of the runs has stopped at a rung, and there is no rung at which both have a loss to compare."]
    if pair.difference is None:
        is_nan = first.final is not None and second.final is not None
        why = "unknown: one of the runs ended with a NaN" if is_nan else "not known yet: one of the runs has no value"
        return [f"The difference in {heading_of(metric)} is {why}."]
    where = f" at rung {pair.rung}" if pair.rung else ""
    if pair.difference == 0:
        return [
            f"{heading_of(metric)}: no difference{where}"
            if where
            else f"{heading_of(metric)}: both {loss(first.final)}"
        ]
    is_better = (pair.difference > 0) is metric.maximize
    word = "better" if is_better else "worse"
    line = f"{heading_of(metric)}: {second.key} is {word} by {shown_difference(abs(pair.difference))}{where}"
    return [line, *(() if pair.rung else _so_far(pair, metric))]


def _so_far(pair: Pair, metric: Metric) -> Iterator[str]:
    """Which runs have not finished, and the steps of their values."""
    for row, curve in zip(pair.runs, pair.curves, strict=True):
        if row.status is not RunStatus.SUCCEEDED and curve:
            step = f"{max(curve)} of {row.max_steps}" if row.max_steps else str(max(curve))
            status = status_text(row.status, row.reason)
            yield f"{row.key} has not finished ({status}): its {heading_of(metric)} is that of step {step}."


def _config_lines(pair: Pair) -> list[str]:
    if not pair.config:
        return ["Their configs are equal."]
    widths = [max(map(len, pair.config))]
    shown = {
        name: tuple("(not set)" if value is None else str(value) for value in both)
        for name, both in pair.config.items()
    }
    widths.append(max(len(one) for one, _ in shown.values()))
    return [
        f"What differs, {pair.runs[0].key} and {pair.runs[1].key}:",
        *(f"  {name:<{widths[0]}}  {one:<{widths[1]}}  {other}" for name, (one, other) in shown.items()),
    ]
