"""Forked workers, and fresh ones where a fork is refused or would not work. Checks of configs are run in the same
way."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_app.process.attempt import NO_TELEMETRY
from modal_app.store.step import Device, Step
from runner.executors.validator import FreshValidator
from runner.executors.warm_server import TrainerConnection, WarmRefused
from runner.executors.warm_workers import WarmWorkers
from runner.executors.workers import FreshWorkers, WorkerExit
from runner.types import StepId

SHORTEST_S = 0.05
"""Between two checks of fresh workers, while forked ones are running, too."""
FRESH = "Started fresh, not forked from a preloaded trainer: {why}."
DO_NOT_TRACK = ("AXOLOTL_DO_NOT_TRACK", "DO_NOT_TRACK")
ON_A_GPU = "a forked process cannot use a GPU that its parent has initialized"


@dataclass(slots=True)
class MixedWorkers:
    """Forked workers where they work as well as fresh ones, otherwise fresh ones; the reason is printed once."""

    warm: WarmWorkers
    fresh: FreshWorkers
    say: Callable[[str], None]
    _refusal: str = ""
    _said: set[str] = field(default_factory=set)

    @property
    def is_up(self) -> bool:
        return self.warm.is_up

    def warm_up(self) -> None:
        with self._or_fresh():
            self.warm.warm_up()

    def start(self, step: Step, locks: Sequence[int] = ()) -> None:
        why = self._refusal or why_fresh(step.device, step.config)
        if not why:
            with self._or_fresh():
                self.warm.start(step, locks)
                return
        self._say_once(self._refusal or why)
        self.fresh.start(step, locks)

    def validate(self, folder: Path) -> None:
        """Answer a folder's questions. Raises SweepError when the process gives no answer."""
        if not self._refusal:
            with self._or_fresh():
                self.warm.validate(folder)
                return
        FreshValidator(self.fresh.python).validate(folder)

    def wait(self, timeout_s: float) -> list[WorkerExit]:
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(deadline - time.monotonic(), 0)
            exited: list[WorkerExit] = []
            if self.warm.busy:
                with self._or_fresh():
                    exited += self.warm.wait(min(left, SHORTEST_S) if self.fresh.busy else left)
                exited += self.fresh.wait(0) if self.fresh.busy else []
            else:
                exited += self.fresh.wait(left)
            if exited or not self.fresh.busy or time.monotonic() >= deadline:
                return exited

    def pid(self, step: StepId) -> int | None:
        return self.warm.pid(step) or self.fresh.pid(step)

    def signal(self, step: StepId, number: signal.Signals) -> None:
        self.warm.signal(step, number)
        self.fresh.signal(step, number)

    def close(self) -> None:
        self.warm.close()
        self.fresh.close()

    @contextlib.contextmanager
    def _or_fresh(self) -> Iterator[None]:
        try:
            yield
        except WarmRefused as refusal:
            self._refusal = str(refusal)
            for step in self.warm.take_back():
                self.fresh.start(step)
            self._say_once(self._refusal)

    def _say_once(self, why: str) -> None:
        if why not in self._said:
            self._said.add(why)
            self.say(FRESH.format(why=why))


@dataclass(slots=True)
class RunningValidator:
    """A preloaded trainer that is already running, used only to check configs."""

    python: Path
    store: Path
    reached: TrainerConnection
    is_up: bool = True

    def validate(self, folder: Path) -> None:
        """Answer a folder's questions. Raises SweepError when the process gives no answer."""
        workers = WarmWorkers(self.python, self.store, {}, None)
        workers.warm_up(self.reached)
        try:
            workers.validate(folder)
        except WarmRefused:
            FreshValidator(self.python).validate(folder)
        finally:
            workers.close()


def why_fresh(device: Device, config: Mapping[str, Any]) -> str:
    """Why a run's worker cannot be forked from a process that has imported everything; empty when it can."""
    if device is not Device.CPU:
        return ON_A_GPU
    if plugins := config.get("plugins"):
        listed = plugins if isinstance(plugins, list) else [plugins]
        return f"plugins ({', '.join(map(str, listed))}) may change libraries before they are imported"
    if _telemetry_is_on():
        return "your environment turns on Axolotl's telemetry, which needs threads that a forked process does not have"
    return ""


def _telemetry_is_on() -> bool:
    """As Axolotl's TelemetryManager reads the environment of a step."""
    values = [{**NO_TELEMETRY, **os.environ}[name] for name in DO_NOT_TRACK]
    return not any(value.strip().lower() in ("1", "true") for value in values)
