"""The progress of a launch: a live table on a terminal, plain lines in a pipe. Always on stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from modal_app.process.tracking import WENT_OFFLINE, TrackingRecord
from modal_app.store.facts import DataManifest
from modal_app.store.layout import StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.state import Phase, StepState, observe
from modal_app.store.step import FailureReason, Step, StepKind
from runner.compare.metrics import read_curves
from runner.compare.params import label, params_of
from runner.compare.ranking import OBJECTIVE
from runner.compare.table import STATUS_COLOURS
from runner.console import terminal
from runner.cost.prices import Rates, bill
from runner.cost.spent import SweepCost, containers, money, run_bill, sweep_cost, sweep_rates
from runner.preflight.prepared_notes import prepared_notes
from runner.store.ledger import SweepRun
from runner.store.run_state import RunStatus, reason_of, status_of, status_text
from runner.types import Plan, PlannedRun

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_FRAMES = 0.5


@dataclass(frozen=True, slots=True)
class Line:
    """The present state of a step."""

    kind: StepKind
    key: str
    label: str
    status: RunStatus
    reason: FailureReason | None
    step: str = ""
    loss: float | None = None
    eval_loss: float | None = None
    message: str = ""
    dollars: float | None = None
    """So far; None if nothing was rented, or there is no price."""

    def text(self) -> str:
        numbers = [f"{name} {value:.3f}" for name, value in self._numbers() if value is not None]
        parts = [self.status_text, f"step {self.step}" if self.step else "", *numbers, self.price, self.message]
        return f"{self.kind:<10} {self.label}: {'  '.join(part for part in parts if part)}"

    @property
    def status_text(self) -> str:
        return status_text(self.status, self.reason)

    @property
    def price(self) -> str:
        return "" if self.dollars is None else money(self.dollars)

    def _numbers(self) -> Iterator[tuple[str, float | None]]:
        yield "loss", self.loss
        yield "eval loss", self.eval_loss


@dataclass(slots=True)
class Progress:
    """Shows a plan's steps while an executor runs them. A context manager."""

    plan: Plan
    store: Store
    console: Console = field(default_factory=terminal.messages)
    seconds_between_frames: float = SECONDS_BETWEEN_FRAMES
    seconds_between_lines: float = SECONDS_BETWEEN_LINES
    """Between two lines of each running step, in a pipe."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Key -> name of runs that are not in the plan."""
    _live: Live | None = None
    _labels: dict[str, str] = field(default_factory=dict)
    _next_frame: float = 0.0
    _next_lines: float = 0.0
    _before: dict[tuple[StepKind, str], int] = field(default_factory=dict)
    """The newest attempt of each step at the start of this launch."""
    _printed: dict[tuple[StepKind, str], tuple[RunStatus, FailureReason | None]] = field(default_factory=dict)
    """The last printed status of each step. Two follow-up steps of different kinds may have the same key."""
    _noted: set[str] = field(default_factory=set)
    """Datasets that were prepared in this launch and whose notes are printed."""
    _succeeded: dict[str, Line] = field(default_factory=dict)
    """Runs whose lines no longer change, so their files are not read again."""

    def __enter__(self) -> Self:
        runs = [planned.run for planned in self.plan.runs]
        params = params_of([run.experiment for run in runs])
        own = {run.key: label(one) or run.key for run, one in zip(runs, params, strict=True)}
        self._labels = {**self.names, **own}
        if self.console.is_terminal:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
        self._before = dict(self._attempts())
        self._next_lines = time.monotonic() + self.seconds_between_lines
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
        if kind is None:
            lines = list(self._lines())
            if not self._live:
                self._print_changes(lines)
            self._print_notes(lines)

    def update(self) -> None:
        """Show changes, at most once per frame."""
        now = time.monotonic()
        if now < self._next_frame:
            return
        self._next_frame = now + self.seconds_between_frames
        lines = list(self._lines())
        if self._live:
            cost = self._cost()
            cost_lines = [Text(line) for line in cost.lines(going_on=True)] if cost else []
            self._live.update(Group(_table(lines), *cost_lines), refresh=True)
            self._print_notes(lines)
            return
        self._print_changes(lines)
        self._print_notes(lines)
        if now >= self._next_lines:
            self._next_lines = now + self.seconds_between_lines
            for line in lines:
                if line.status is RunStatus.RUNNING:
                    terminal.say(self.console, line.text())

    def _print_changes(self, lines: list[Line]) -> None:
        for line in lines:
            status = line.status, line.reason
            if self._printed.get((line.kind, line.key)) != status:
                self._printed[line.kind, line.key] = status
                if line.status is not RunStatus.PENDING:
                    terminal.say(self.console, line.text())

    def _print_notes(self, lines: list[Line]) -> None:
        """What is known of a dataset only when it is prepared: above the table, or below its line."""
        for line in lines:
            if line.kind is StepKind.PREPROCESS and line.status is RunStatus.SUCCEEDED and line.key not in self._noted:
                self._noted.add(line.key)
                manifest = DataManifest.read(self.store.manifest(line.key))
                reading = [one.run.experiment for one in self.plan.pending if one.run.data_key == line.key]
                for note in prepared_notes(reading, manifest):
                    terminal.say(self.console, note, style="yellow")

    def _cost(self) -> SweepCost | None:
        runs = [SweepRun(one.run.key, one.run.data_key, ()) for one in self.plan.runs]
        return sweep_cost(self.store, self.plan.sweep, runs)

    def _lines(self) -> Iterator[Line]:
        pending = self.plan.pending
        rates = sweep_rates(self.store, self.plan.sweep, [planned.run.key for planned in self.plan.runs])
        wanted = {planned.run.data_key for planned in pending}
        for dataset in self.plan.datasets:
            if dataset.key in wanted and not dataset.done:
                yield self._dataset_line(dataset.key, rates)
        for planned in pending:
            if planned.trains:
                yield self._succeeded.get(planned.run.key) or self._run_line(planned, rates)
        for one in self.plan.after:
            if not one.done:
                yield self._after_line(one.step)

    def _observe(self, kind: StepKind, key: str) -> StepState:
        """The state of a step, without the failures of attempts before this launch."""
        state = observe(self.store, kind, key)
        old = state.phase in (Phase.FAILED, Phase.STOPPED, Phase.LOST) and state.attempt <= self._before[kind, key]
        return StepState(Phase.ABSENT) if old else state

    def _attempts(self) -> Iterator[tuple[tuple[StepKind, str], int]]:
        steps = [(StepKind.PREPROCESS, dataset.key) for dataset in self.plan.datasets]
        steps += [(StepKind.TRAIN, planned.run.key) for planned in self.plan.runs]
        steps += [(one.step.kind, one.step.key) for one in self.plan.after]
        yield from ((step, observe(self.store, *step).attempt) for step in steps)

    def _dataset_line(self, key: str, rates: Rates | None) -> Line:
        state = self._observe(StepKind.PREPROCESS, key)
        rows = DataManifest.read(self.store.manifest(key)).rows
        message = f"{rows} rows" if rows is not None else _message(state)
        rented = containers(self.store.folder(StepKind.PREPROCESS, key))
        dollars = bill(rented, rates).dollars if rented and rates else None
        status, reason = status_of(state), reason_of(state)
        return Line(StepKind.PREPROCESS, key, key, status, reason, message=message, dollars=dollars)

    def _run_line(self, planned: PlannedRun, rates: Rates | None) -> Line:
        key = planned.run.key
        state = self._observe(StepKind.TRAIN, key)
        folder = self.store.folder(StepKind.TRAIN, key)
        curves = read_curves(folder.metrics)
        attempts = folder.attempts()
        max_steps = read_json(attempts[-1].train_state).get("max_steps") if attempts else None
        rented = containers(folder)
        line = Line(
            kind=StepKind.TRAIN,
            key=key,
            label=self._labels[key],
            status=status_of(state),
            reason=reason_of(state),
            step=f"{curves.step or 0}/{max_steps}" if max_steps else "",
            loss=curves.final("loss"),
            eval_loss=curves.final(OBJECTIVE),
            message=_message(state) or _offline(folder),
            dollars=run_bill(self.store, key, rented, rates).dollars if rented and rates else None,
        )
        # On Modal, its cost still grows for a while, and its files arrive one after the other.
        if state.phase is Phase.SUCCEEDED and planned.run.experiment.executor.type == "local":
            self._succeeded[key] = line
        return line

    def _after_line(self, step: Step) -> Line:
        state = self._observe(step.kind, step.key)
        name = self._labels.get(step.run) or step.run or "the base model"
        message = self._answered(step) if state.phase is Phase.RUNNING else _message(state)
        return Line(step.kind, step.key, name, status_of(state), reason_of(state), message=message)

    def _answered(self, step: Step) -> str:
        attempts = self.store.folder(step.kind, step.key).attempts()
        progress = read_json(attempts[-1].progress) if attempts else {}
        return f"answered {progress['done']} of {progress['of']}" if progress else ""


def _message(state: StepState) -> str:
    if state.outcome is None:
        return ""
    return str(state.outcome.facts.get("damaged", "")) if state.phase is Phase.SUCCEEDED else state.outcome.message


def _offline(folder: StepFolder) -> str:
    record = TrackingRecord.read(folder.tracking)
    return WENT_OFFLINE if record and record.offline else ""


def _table(lines: list[Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    priced = ["dollars"] if any(line.price for line in lines) else []
    for heading in ("step", "what", "status", "at", "loss", "eval loss", *priced, ""):
        table.add_column(heading, justify="right" if heading in ("at", "loss", "eval loss", "dollars") else "left")
    for line in lines:
        numbers = ["" if value is None else f"{value:.3f}" for value in (line.loss, line.eval_loss)]
        what, message = escape(line.label), escape(line.message)
        style = STATUS_COLOURS[line.status]
        prices = [line.price] if priced else []
        table.add_row(line.kind, what, line.status_text, line.step, *numbers, *prices, message, style=style)
    return table
