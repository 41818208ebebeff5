"""Workers of one command, forked from the preloaded trainer (modal_app.warm), and fresh ones where that is refused."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_app.process.attempt import NO_TELEMETRY
from modal_app.process.signals import signal_group
from modal_app.store.out_of_memory import KillCount
from modal_app.store.step import Device, Step, StepKind
from modal_app.warm.context import Context
from runner.executors.validator import FreshValidator
from runner.executors.warm_server import TrainerConnection, WarmRefused, reach
from runner.executors.workers import FreshWorkers, WorkerExit, could_not_ask
from runner.types import StepId

VALIDATION_POLL_S = 1.0
"""A Ctrl-C that comes just before the process sleeps is seen when it wakes."""
SHORTEST_S = 0.05
"""Between two checks of fresh workers, while forked ones are running, too."""
FRESH = "Started fresh, not forked from a preloaded trainer: {why}."
DO_NOT_TRACK = ("AXOLOTL_DO_NOT_TRACK", "DO_NOT_TRACK")
ON_A_GPU = "a forked process cannot use a GPU that its parent has woken"


@dataclass(slots=True)
class WarmWorkers:
    """One process that has imported Axolotl forks a worker for each step. It may serve other commands as well."""

    python: Path
    store: Path
    environment: Mapping[str, str]
    """Beyond this process's own."""
    idle_s: float | None = 0.0
    """How long it waits for the next command; None does not change that."""
    _reached: TrainerConnection | None = None
    _introduced: bool = False
    _served: bool = False
    _steps: dict[StepId, Step] = field(default_factory=dict)
    _pids: dict[StepId, int] = field(default_factory=dict)
    _unread: bytes = b""
    _kills: KillCount = field(default_factory=KillCount)
    _code: int | None = None
    """With which code the preloaded process has ended, if this command had started it."""

    @property
    def busy(self) -> bool:
        return bool(self._steps)

    @property
    def is_up(self) -> bool:
        """Whether it was running before this command: then it has most likely imported everything."""
        return self._reached is not None and self._reached.process is None

    @property
    def log(self) -> Path | None:
        """The stderr of the preloaded process itself."""
        return self._reached.address.log if self._reached else None

    def warm_up(self, reached: TrainerConnection | None = None) -> None:
        """Find or start it, or use `reached`; it imports while this process does something else.

        Raises WarmRefused.
        """
        if self._reached is None:
            self._reached = reached or reach(self.python, self.store, self.idle_s or 0.0)
            self._introduced, self._unread = False, b""

    def start(self, step: Step) -> None:
        self._converse()
        self._steps[step.kind, step.key] = step  # first: a Ctrl-C while it is sent must find what to stop
        self._say({"step": json.loads(step.to_json())})

    def validate(self, folder: Path) -> None:
        """Answer a folder's questions (modal_app.oneshot.validate), before any step is started.

        Raises SweepError when the process gives no answer, WarmRefused when it cannot fork.
        """
        self._converse()
        self._say({"validate": str(folder)})
        log = self.log
        assert log is not None
        while (events := self._read(VALIDATION_POLL_S)) is not None:
            for event in events:
                if event["event"] == "validated":
                    if event["code"] != 0:
                        raise could_not_ask(event["code"], log, self._kills)
                    return
        self._all_lost()
        raise could_not_ask(self._code, log, self._kills)

    def wait(self, timeout_s: float) -> list[WorkerExit]:
        if self._reached is None or not self._steps:
            time.sleep(timeout_s)
            return []
        events = self._read(timeout_s)
        if events is None:
            return self._all_lost()
        exited = []
        for event in events:
            if event["event"] == "started":
                self._pids[StepKind(event["kind"]), event["key"]] = event["pid"]
            elif event["event"] == "exited":
                step = (StepKind(event["kind"]), event["key"])
                self._pids.pop(step, None)
                self._steps.pop(step, None)
                exited.append(WorkerExit(step, event["code"], event["pid"]))
        return exited

    def pid(self, step: StepId) -> int | None:
        return self._pids.get(step)

    def signal(self, step: StepId, number: signal.Signals) -> None:
        if pid := self._pids.get(step):
            signal_group(pid, number)
        elif step in self._steps and self._reached is not None:  # its process is not known yet, if there is one
            self._say({"signal": int(number), "kind": step[0], "key": step[1]})

    def take_back(self) -> list[Step]:
        """The steps that were sent to a process that refused them."""
        steps = list(self._steps.values())
        self._steps.clear()
        self.close()
        return steps

    def close(self) -> None:
        """Workers continue; steps that have not started never will. A process that was started and not used ends."""
        if self._reached is None:
            return
        self._reached.socket.close()
        process, self._reached = self._reached.process, None
        if process is None:
            return
        if not self._served and process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.poll()
        process.returncode = 0  # it continues by itself

    def _converse(self) -> None:
        """Begin a conversation where there is none, also if the other end died while it was idle."""
        if self._reached is not None and not self._steps and _has_hung_up(self._reached.socket):
            self._all_lost()
        self.warm_up()
        if self._introduced:
            return
        context = Context.of_this_process({**os.environ, **self.environment})
        self._say({"context": context.as_json()})
        if self.idle_s is not None:
            self._say({"idle_s": self.idle_s})
        self._introduced = True

    def _say(self, request: Mapping[str, object]) -> None:
        assert self._reached is not None
        with contextlib.suppress(OSError):  # it has ended: `wait` reports that
            self._reached.socket.sendall(json.dumps(request).encode() + b"\n")

    def _read(self, timeout_s: float) -> list[dict[str, Any]] | None:
        """The events that have arrived; None when the preloaded process has ended. Raises WarmRefused."""
        assert self._reached is not None
        if not select.select([self._reached.socket], [], [], timeout_s)[0]:
            return []
        try:
            block = self._reached.socket.recv(1 << 16)
        except OSError:
            block = b""
        if not block:
            return None
        *lines, self._unread = (self._unread + block).split(b"\n")
        events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        for event in events:
            if event["event"] == "refused":
                raise WarmRefused(event["why"])
        self._served |= any(event["event"] in ("started", "validated") for event in events)
        return events

    def _all_lost(self) -> list[WorkerExit]:
        assert self._reached is not None
        log = self._reached.address.log
        self._reached.socket.close()
        if self._reached.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._code = self._reached.process.wait(1)
            self._reached.process.returncode = 0
        self._reached = None
        exited = [WorkerExit(step, None, self._pids.get(step), log) for step in self._steps]
        self._steps.clear()
        self._pids.clear()
        return exited


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

    def start(self, step: Step) -> None:
        why = self._refusal or why_fresh(step.device, step.config)
        if not why:
            with self._or_fresh():
                self.warm.start(step)
                return
        self._say_once(self._refusal or why)
        self.fresh.start(step)

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
        return "your environment turns on Axolotl's telemetry, which at its end waits for threads that a fork lacks"
    return ""


def _telemetry_is_on() -> bool:
    """As Axolotl's TelemetryManager reads the environment of a step."""
    values = [{**NO_TELEMETRY, **os.environ}[name] for name in DO_NOT_TRACK]
    return not any(value.strip().lower() in ("1", "true") for value in values)


def _has_hung_up(line: socket.socket) -> bool:
    """Whether the other end is closed; what it sent before can still be read."""
    poll = select.poll()
    poll.register(line, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
