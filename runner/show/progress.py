"""The progress of a launch: a live table on a terminal, plain lines in a pipe. Always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Self

from rich.console import Console

from modal_app.process.tracking import WENT_OFFLINE, TrackingRecord
from modal_app.store.facts import DataManifest, TrainState
from modal_app.store.layout import StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.state import Phase, StepState, observe
from modal_app.store.step import FOLLOW_UP_KINDS, Step, StepKind
from runner.compare.metrics import read_curves
from runner.compare.params import label
from runner.console import terminal
from runner.cost.prices import Rates, bill
from runner.cost.spent import SweepCost, containers, run_bill, sweep_cost, sweep_rates
from runner.preflight.prepared_notes import prepared_notes
from runner.show.downloads import download_lines
from runner.show.headway import ExpectedSeconds, Headway, Timing, headway_of
from runner.show.line import Line
from runner.show.redraw import Redraw, can_redraw, marks_of
from runner.show.rung_words import step_and_loss
from runner.show.screen import screen
from runner.show.step_progress import with_progress
from runner.store.ledger import SweepRun
from runner.store.run_state import RunStatus, reason_of, rung_of, status_of
from runner.store.searches import RungReached, reached_by_run, searches_of
from runner.types import Plan, PlannedRun

SECONDS_BETWEEN_LINES = 10.0
SECONDS_BETWEEN_FRAMES = 0.5
GOING_ON = (RunStatus.RUNNING, RunStatus.PENDING)


@dataclass(slots=True)
class Progress:
    """Shows a plan's steps while an executor runs them. A context manager."""

    plan: Plan
    store: Store
    console: Console = field(default_factory=terminal.messages)
    seconds_between_frames: float = SECONDS_BETWEEN_FRAMES
    seconds_between_lines: float = SECONDS_BETWEEN_LINES
    """Between two lines of each running step, and of the whole sweep, in a pipe."""
    clock: Callable[[], float] = time.time
    """Unix seconds."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Key -> name of runs that are not in the plan."""
    _redraw: Redraw | None = None
    _labels: dict[str, str] = field(default_factory=dict)
    _params: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    """Run key -> what tells it apart from the others."""
    _since: float = 0.0
    _next_frame: float = 0.0
    _next_lines: float = 0.0
    _before: dict[tuple[StepKind, str], int] = field(default_factory=dict)
    """The newest attempt of each step at the start of this launch."""
    _printed: dict[tuple[StepKind, str], tuple[object, ...]] = field(default_factory=dict)
    """The last printed status of each step. Two follow-up steps of different kinds may have the same key."""
    _noted: set[str] = field(default_factory=set)
    """Datasets that were prepared in this launch and whose notes are printed."""
    _succeeded: dict[str, Line] = field(default_factory=dict)
    """Runs whose lines no longer change, so their files are not read again."""

    def __enter__(self) -> Self:
        self._since = self.clock()
        self._params = {planned.run.key: planned.step.tracking.params for planned in self.plan.runs}
        self._labels = {**self.names, **{key: label(one) or key for key, one in self._params.items()}}
        if can_redraw(self.console):
            self._redraw = Redraw(self.console)
        self._before = dict(self._attempts())
        self._next_lines = time.monotonic() + self.seconds_between_lines
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._redraw:
            self._redraw.close()
        if kind is None:
            lines = list(self._lines())
            if not self._redraw:
                self._print_changes(lines)
            self._print_notes(lines)

    def update(self) -> None:
        """Show changes, at most once per frame."""
        now = time.monotonic()
        if now < self._next_frame:
            return
        self._next_frame = now + self.seconds_between_frames
        lines = list(self._lines())
        if self._redraw:
            self._draw(lines, self._redraw)
            self._print_notes(lines)
            return
        self._print_changes(lines)
        self._print_notes(lines)
        if now >= self._next_lines:
            self._next_lines = now + self.seconds_between_lines
            running = [line for line in lines if line.status is RunStatus.RUNNING]
            for line in running:
                terminal.say(self.console, line.text())
            if running:
                headway = self._headway(lines, ExpectedSeconds.read(self.store, self.plan.sweep), self.clock())
                terminal.say(self.console, f"{'sweep':<10} {headway.counted}; {headway.timed}")

    def _draw(self, lines: Sequence[Line], redraw: Redraw) -> None:
        now, marks = self.clock(), marks_of(self.console)
        expected = ExpectedSeconds.read(self.store, self.plan.sweep)
        headway = self._headway(lines, expected, now)
        shown = [*download_lines(self.store, self.plan.sweep), *lines]
        redraw.show(lambda size: screen(shown, headway, size, now=now, marks=marks, expected=expected))

    def _headway(self, lines: Sequence[Line], expected: ExpectedSeconds | None, now: float) -> Headway:
        """The headway of the runs; once they have ended, or if there are none, that of the other steps."""
        of = {kind: [line.timing for line in lines if line.kind is kind and line.timing] for kind in StepKind}
        datasets, runs = of[StepKind.PREPROCESS], of[StepKind.TRAIN]
        after = [one for kind in FOLLOW_UP_KINDS for one in of[kind]]
        done = [Timing(one.run.key, RunStatus.SUCCEEDED, 1.0, before=True) for one in self.plan.runs if one.done]
        cost = self._cost()
        counted, noun = [*done, *runs], ""
        if not runs or (after and not any(one.status in GOING_ON for one in runs)):
            counted, noun = (after, "follow-up steps") if after else (datasets, "datasets")
        first = datasets if counted is not datasets else []
        return headway_of(counted, first, expected, since=self._since, now=now, cost=cost, noun=noun)

    def _print_changes(self, lines: list[Line]) -> None:
        for line in lines:
            if not line.is_deciding and self._printed.get((line.kind, line.key)) != line.change:
                self._printed[line.kind, line.key] = line.change
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
        has_rungs = any(planned.step.rungs for planned in pending)
        reached = reached_by_run(searches_of(self.store, self.plan.sweep)) if has_rungs else {}
        for dataset in self.plan.datasets:
            if dataset.key in wanted and not dataset.done:
                yield self._dataset_line(dataset.key, rates)
        for planned in pending:
            if planned.trains:
                at_rungs = reached.get(planned.run.key, ())
                yield self._succeeded.get(planned.run.key) or self._run_line(planned, rates, at_rungs)
        for one in self.plan.after:
            if not one.done:
                yield self._after_line(one.step)

    def _observe(self, kind: StepKind, key: str, *, to_its_end: bool = True) -> StepState:
        """The state of a step, without the failures of attempts before this launch, and without their stops at a rung
        if this one goes on from there."""
        state = observe(self.store, kind, key)
        ended = (Phase.FAILED, Phase.STOPPED, Phase.LOST, *((Phase.AT_RUNG,) if to_its_end else ()))
        old = state.phase in ended and state.attempt <= self._before[kind, key]
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
        folder = self.store.folder(StepKind.PREPROCESS, key)
        rented = containers(folder)
        dollars = bill(rented, rates).dollars if rented and rates else None
        status, reason = status_of(state), reason_of(state)
        timing = _timing(key, state)
        line = Line(StepKind.PREPROCESS, key, key, status, reason, message=message, dollars=dollars, timing=timing)
        return with_progress(line, folder)

    def _run_line(self, planned: PlannedRun, rates: Rates | None, reached: Sequence[RungReached]) -> Line:
        key = planned.run.key
        state = self._observe(StepKind.TRAIN, key, to_its_end=planned.step.rungs is None)
        folder = self.store.folder(StepKind.TRAIN, key)
        curves = read_curves(folder.metrics)
        attempts = folder.attempts()
        train_state = TrainState.read(attempts[-1].train_state) if attempts else TrainState()
        max_steps = train_state.max_steps
        rented = containers(folder)
        timing = _timing(key, state)
        if max_steps:
            timing = replace(
                timing,
                part=min((curves.step or 0) / max_steps, 1.0),
                logged_at=curves.logged_at,
                startup_s=train_state.startup_seconds,
                resumed_part=train_state.resumed_from / max_steps,
            )
        last = reached[-1] if reached else None
        step, eval_loss = step_and_loss(status_of(state), curves, last)
        line = Line(
            kind=StepKind.TRAIN,
            key=key,
            label=self._labels[key],
            status=status_of(state),
            reason=reason_of(state),
            step=f"{step}/{max_steps}" if max_steps else "",
            loss=curves.final("loss"),
            eval_loss=eval_loss,
            message=_message(state) or _offline(folder),
            dollars=run_bill(self.store, key, rented, rates).dollars if rented and rates else None,
            params=self._params[key],
            timing=timing,
            rung=rung_of(state),
            reached=last,
        )
        # On Modal, its cost still grows for a while, and its files arrive one after the other.
        if state.phase is Phase.SUCCEEDED and planned.run.experiment.executor.type == "local":
            self._succeeded[key] = line
        return with_progress(line, folder)

    def _after_line(self, step: Step) -> Line:
        state = self._observe(step.kind, step.key)
        name = self._labels.get(step.run) or step.run or "the base model"
        answered = self._answered(step) if state.phase is Phase.RUNNING else {}
        counted = f"{answered['done']} of {answered['of']}" if answered else ""
        message = "answered" if answered else _message(state)
        timing = _timing(f"{step.kind}/{step.key}", state)
        if answered and answered["of"]:
            timing = replace(timing, part=answered["done"] / answered["of"], logged_at=self.clock())
        params = self._params.get(step.run, {})
        return Line(
            step.kind,
            step.key,
            name,
            status_of(state),
            reason_of(state),
            message=message,
            counted=counted,
            params=params,
            timing=timing,
        )

    def _answered(self, step: Step) -> Mapping[str, Any]:
        attempts = self.store.folder(step.kind, step.key).attempts()
        return read_json(attempts[-1].progress) if attempts else {}


def _timing(key: str, state: StepState) -> Timing:
    ended_at = state.outcome.finished_at if state.outcome else None
    return Timing(key, status_of(state), started_at=state.started_at, ended_at=ended_at, rung=rung_of(state))


def _message(state: StepState) -> str:
    if state.outcome is None or state.phase is Phase.AT_RUNG:
        return ""
    return str(state.outcome.facts.get("damaged", "")) if state.phase is Phase.SUCCEEDED else state.outcome.message


def _offline(folder: StepFolder) -> str:
    record = TrackingRecord.read(folder.tracking)
    return WENT_OFFLINE if record and record.offline else ""
