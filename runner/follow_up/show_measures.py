"""Prints the metrics of evaluations, for people and for --json: a line per run, the best first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table
from rich.text import Text

from modal_app.store.step import FailureReason
from runner.compare.ranking import Metric
from runner.compare.table import heading_of
from runner.console import terminal
from runner.console.numbers import loss
from runner.console.print_json import print_json
from runner.follow_up.carry_out import FollowUpResult
from runner.follow_up.subjects import Subject
from runner.store.run_state import RunStatus, reason_of, status_of

THE_BASE = "the base model"
SHOWN = 6
"""The most metrics in the table; --json has all."""


@dataclass(frozen=True, slots=True)
class Line:
    """A run or a base model, and its metrics."""

    run: str
    """Its key; empty for a base model."""
    name: str
    status: RunStatus
    reason: FailureReason | None
    message: str
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Name -> value; empty unless it has succeeded."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """stderr, higher_is_better, parts, documents, rows: see modal_app.steps.evaluate."""

    @classmethod
    def of(cls, carried: FollowUpResult, chosen: Sequence[Subject]) -> Line:
        step, outcome = carried.step.step, carried.state.outcome
        names = {one.key: one.name for one in chosen}
        facts = dict(outcome.facts) if outcome and carried.succeeded else {}
        return cls(
            run=step.run,
            name=names[step.run] if step.run else THE_BASE,
            status=status_of(carried.state),
            reason=reason_of(carried.state),
            message="" if carried.succeeded else carried.message,
            metrics=facts.pop("metrics", {}),
            facts=facts,
        )


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """A run or a base model, and its metrics."""

    run: str | None
    """Null for a base model."""
    name: str
    status: RunStatus
    """Of the evaluation."""
    reason: FailureReason | None
    message: str
    metrics: Mapping[str, float]
    stderr: Mapping[str, float]
    """The standard errors of metrics of tasks."""
    higher_is_better: Mapping[str, bool]
    parts: Mapping[str, float]
    """The metrics of each task in a group."""
    documents: Mapping[str, int]
    """How many questions each task asked."""
    rows: int | None
    """Held-out rows; null for tasks."""
    templated: bool | None
    """Whether the questions of tasks were asked in the model's chat template."""


@dataclass(frozen=True, slots=True)
class Measures:
    """What `eval --json` prints, the best model first."""

    sweep: str
    lines: tuple[MeasuredModel, ...]


def show_lines(lines: Sequence[Line], subject: Subject, *, as_json: bool) -> None:
    """Print results to stdout."""
    measured = [line for line in lines if line.metrics]
    shown = list(dict.fromkeys(name for line in measured for name in line.metrics))
    ordered = _best_first(lines, shown)
    if as_json:
        print_json(Measures(subject.sweep, tuple(map(_measured, ordered))))
        return
    if not measured:
        return
    console = terminal.results()
    console.print(_table([line for line in ordered if line.metrics], shown[:SHOWN]), crop=False)
    if len(shown) > SHOWN:
        terminal.say(console, f"... and {', '.join(shown[SHOWN:])}: --json has all.")
    terminal.say(console, f"All runs by this metric: axosweep compare {subject.sweep} --metric {shown[0]}")


def _best_first(lines: Sequence[Line], shown: Sequence[str]) -> list[Line]:
    """Sorted by the first metric; base models come first, for comparison."""
    if not shown:
        return list(lines)
    name = shown[0]
    up = any(line.facts.get("higher_is_better", {}).get(name) for line in lines)

    def place(line: Line) -> tuple[bool, float]:
        value = line.metrics.get(name, math.inf)
        return bool(line.run), -value if up and name in line.metrics else value

    return sorted(lines, key=place)


def _table(lines: Sequence[Line], shown: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("run", no_wrap=True)
    table.add_column("", no_wrap=True)
    for name in shown:
        table.add_column(Text(heading_of(Metric(name))), justify="right", no_wrap=True)
    for line in lines:
        name = "" if line.name == line.run else line.name
        table.add_row(line.run, Text(name), *(_cell(line, metric) for metric in shown))
    return table


def _cell(line: Line, name: str) -> str:
    if name not in line.metrics:
        return ""
    error = line.facts.get("stderr", {}).get(name)
    return loss(line.metrics[name]) + (f" ± {loss(error)}" if error is not None else "")


def _measured(line: Line) -> MeasuredModel:
    facts = line.facts
    return MeasuredModel(
        run=line.run or None,
        name=line.name,
        status=line.status,
        reason=line.reason,
        message=line.message,
        metrics=line.metrics,
        stderr=facts.get("stderr", {}),
        higher_is_better=facts.get("higher_is_better", {}),
        parts=facts.get("parts", {}),
        documents=facts.get("documents", {}),
        rows=facts.get("rows"),
        templated=facts.get("templated"),
    )
