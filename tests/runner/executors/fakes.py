"""Stand-ins for what the local executor meets: its workers, and another launcher's worker."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from modal_app.store.claim import AlreadyClaimed, claim
from modal_app.store.layout import Attempt, Store
from modal_app.store.step import EXIT_HELD, OutcomeStatus, Step, StepKind
from runner.executors.workers import WorkerExit
from runner.types import StepId
from tests.runner.builders import begin_attempt, end_attempt

NOBODY: frozenset[str] = frozenset()


@dataclass
class FakeWorkers:
    """Workers without processes: each has the real claim, leaves what a worker leaves, and ends in order of start."""

    store: Store
    endings: Mapping[str, OutcomeStatus] = field(default_factory=dict)
    """How a step ends, by key; success for those not named."""
    endless: frozenset[str] = NOBODY
    """Keys whose workers run until they get a signal."""
    deaf: frozenset[str] = NOBODY
    """Keys whose workers ignore SIGTERM."""
    saving: Mapping[str, float] = field(default_factory=dict)
    """Key -> how many seconds its worker takes to save after a request to stop."""
    when_asked: Callable[[], object] = lambda: None
    """What happens as soon as a worker has got a request to stop."""
    stillborn: frozenset[str] = NOBODY
    """Keys whose workers die before they claim their step."""
    unborn: frozenset[str] = NOBODY
    """Keys whose workers are still importing."""
    before_claim: Callable[[Step], None] = lambda step: None
    """What happens between a worker's start and its claim."""
    started: list[Step] = field(default_factory=list)
    together: list[tuple[Step, ...]] = field(default_factory=list)
    """Which steps were alive at the same moment, at each wait."""
    signals: list[tuple[str, signal.Signals]] = field(default_factory=list)
    waits: int = 0
    closed: bool = False
    _alive: dict[StepId, _Alive] = field(default_factory=dict)
    _saved_at: dict[StepId, float] = field(default_factory=dict)
    _soon: list[WorkerExit] = field(default_factory=list)
    _later: list[WorkerExit] = field(default_factory=list)

    def start(self, step: Step, locks: Sequence[int] = ()) -> None:
        self.started.append(step)
        self.before_claim(step)
        this = (step.kind, step.key)
        if step.key in self.stillborn:
            self._soon.append(WorkerExit(this, 1, os.getpid()))
            return
        held = contextlib.ExitStack()
        for one in locks:
            held.callback(os.close, os.dup(one))
        if step.key in self.unborn:
            self._alive[this] = _Alive(step, None, held)
        else:
            try:
                held.enter_context(claim(self.store.folder(*this)))
            except AlreadyClaimed:
                held.close()
                self._later.append(WorkerExit(this, EXIT_HELD, os.getpid()))
            else:
                self._alive[this] = _Alive(step, begin_attempt(self.store, *this), held)

    def pid(self, step: StepId) -> int | None:
        return os.getpid()

    def wait(self, timeout_s: float) -> list[WorkerExit]:
        self.waits += 1
        assert self.waits < 1000, "the executor never ends"
        self.together.append(tuple(alive.step for alive in self._alive.values()))
        exited, self._soon, self._later = self._soon, self._later, []
        for this in [this for this, at in self._saved_at.items() if time.monotonic() >= at]:
            del self._saved_at[this]
            exited.append(self._end(this, OutcomeStatus.STOPPED))
        ready = next((this for this in self._alive if this[1] not in self.endless | self.unborn), None)
        if ready is not None:
            exited.append(self._end(ready, self.endings.get(ready[1], OutcomeStatus.SUCCEEDED)))
        if not exited:
            time.sleep(0.002)
        return exited

    def signal(self, step: StepId, number: signal.Signals) -> None:
        if step not in self._alive:
            return
        self.signals.append((step[1], number))
        if number is signal.SIGKILL or step[1] in self.unborn:
            self._alive.pop(step).held.close()
            self._soon.append(WorkerExit(step, -number, os.getpid()))
        elif step[1] in self.saving:
            (attempt,) = self.store.folder(*step).attempts()
            attempt.train_state.write_text("{}")  # training has begun
            self._saved_at[step] = time.monotonic() + self.saving[step[1]]
        elif step[1] not in self.deaf:
            self._soon.append(self._end(step, OutcomeStatus.STOPPED))

        if number is signal.SIGTERM:
            self.when_asked()

    def close(self) -> None:
        self.closed = True

    def _end(self, step: StepId, status: OutcomeStatus) -> WorkerExit:
        alive = self._alive.pop(step)
        assert alive.attempt is not None
        if status is not OutcomeStatus.LOST:
            end_attempt(self.store, *step, alive.attempt, status, message=f"it {status}")
        alive.held.close()
        return WorkerExit(step, 0 if status is OutcomeStatus.SUCCEEDED else 1, os.getpid())


@dataclass
class _Alive:
    step: Step
    attempt: Attempt | None
    held: contextlib.ExitStack


@dataclass
class Rival:
    """Another launcher's worker: a real process that has the claim of a step until it gets an instruction."""

    store: Store
    kind: StepKind
    key: str
    process: BaseProcess = field(init=False)
    _line: Connection = field(init=False)

    def __post_init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self._line, far = context.Pipe()
        self.process = context.Process(target=self._work, args=(far,), daemon=True)
        self.process.start()
        assert self._line.recv() == "holds it"

    def end(self, status: OutcomeStatus) -> None:
        self._line.send(status)
        self.process.join()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def _work(self, line: Connection) -> None:
        with claim(self.store.folder(self.kind, self.key)):
            attempt = begin_attempt(self.store, self.kind, self.key)
            line.send("holds it")
            status: OutcomeStatus = line.recv()
            end_attempt(self.store, self.kind, self.key, attempt, status, message="the rival's")
