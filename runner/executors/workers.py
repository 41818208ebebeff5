"""Worker processes on this machine: forked from one preloaded process, or started fresh. Starts and reaps, no more.

Workers lead process groups of their own: a terminal's Ctrl-C does not reach them, the death of the launcher does
not end them, and stopping one stops all that it started.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import modal_app
from modal_app.layout import Store
from modal_app.state import record_exit
from modal_app.step import Step, StepKind
from runner.errors import SweepError
from runner.types import StepId

SHOWN_LINES = 12
"""Of a log, in an error."""
VALIDATION_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker that this process started has ended. `code` is negative for a signal, None when nobody knows."""

    step: StepId
    code: int | None
    pid: int | None
    """None when nobody knows it."""
    log: Path | None = None
    """Where the reason stands, when it is not in the step's own folder."""


class Workers(Protocol):
    def start(self, step: Step) -> None: ...
    def pid(self, step: StepId) -> int | None:
        """The process that works on a started step; None until it is known."""
        ...

    def wait(self, timeout_s: float) -> list[Exited]:
        """The workers that ended, waiting at most `timeout_s` for news."""
        ...

    def signal(self, step: StepId, number: signal.Signals) -> None:
        """Signal a worker's whole process group; nothing happens when it has ended."""
        ...

    def close(self) -> None:
        """Accept no more steps; workers still alive go on by themselves."""
        ...


@dataclass(slots=True)
class FreshWorkers:
    """A new Python process for each step."""

    python: Path
    store: Path
    environment: Mapping[str, str]
    _alive: dict[StepId, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, step: Step) -> None:
        process = subprocess.Popen(
            [self.python, script("worker.py"), "--store", self.store],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
            start_new_session=True,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(step.to_json().encode() + b"\n")
        self._alive[step.kind, step.key] = process

    def pid(self, step: StepId) -> int | None:
        process = self._alive.get(step)
        return process.pid if process else None

    def wait(self, timeout_s: float) -> list[Exited]:
        if not self._alive:
            time.sleep(timeout_s)
        for process in self._alive.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)
            break
        ended = {step: process.poll() for step, process in self._alive.items()}
        exited = [Exited(step, code, self._alive[step].pid) for step, code in ended.items() if code is not None]
        for one in exited:
            kind, key = one.step
            del self._alive[one.step]
            assert one.pid is not None
            assert one.code is not None
            record_exit(Store(self.store), kind, key, one.pid, one.code)
        return exited

    def signal(self, step: StepId, number: signal.Signals) -> None:
        if process := self._alive.get(step):
            _signal_group(process.pid, number)

    def close(self) -> None:
        self._alive.clear()


@dataclass(slots=True)
class WarmWorkers:
    """One process that has imported Axolotl forks a worker for each step."""

    python: Path
    store: Path
    environment: Mapping[str, str]
    log: Path
    """What the preloaded process itself says on stderr."""
    _process: subprocess.Popen[bytes] | None = None
    _pids: dict[StepId, int | None] = field(default_factory=dict)
    _unread: bytes = b""

    def start(self, step: Step) -> None:
        self._say({"step": json.loads(step.to_json())})
        self._pids[step.kind, step.key] = None

    def validate(self, folder: Path) -> None:
        """Answer a folder's questions (modal_app.validate), before any step is started. Raises SweepError when the
        process ends without.
        """
        self._say({"validate": str(folder)})
        while (lines := self._read(VALIDATION_POLL_S)) is not None:
            for event in map(json.loads, lines):
                if event["event"] == "validated":
                    if event["code"] != 0:
                        raise could_not_ask(event["code"], self.log)
                    return
        self._all_lost()
        raise could_not_ask(None, self.log)

    def wait(self, timeout_s: float) -> list[Exited]:
        if self._process is None or not self._pids:
            time.sleep(timeout_s)
            return []
        lines = self._read(timeout_s)
        if lines is None:
            return self._all_lost()
        exited = []
        for event in map(json.loads, lines):
            if event["event"] == "started":
                self._pids[StepKind(event["kind"]), event["key"]] = event["pid"]
            elif event["event"] == "exited":
                step = (StepKind(event["kind"]), event["key"])
                self._pids.pop(step, None)
                exited.append(Exited(step, event["code"], event["pid"]))
        return exited

    def pid(self, step: StepId) -> int | None:
        return self._pids.get(step)

    def signal(self, step: StepId, number: signal.Signals) -> None:
        if pid := self._pids.get(step):
            _signal_group(pid, number)

    def close(self) -> None:
        if self._process is None:
            return
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if not self._pids or None in self._pids.values():
            _signal_group(self._process.pid, signal.SIGKILL)  # idle, or still importing: it must not fork any more
            self._process.wait()
        self._process.stdout.close()
        self._process = None

    def _say(self, request: Mapping[str, object]) -> None:
        process = self._running()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and not self._pids and self._process.poll() is not None:
            self._all_lost()  # it died while it had nothing to do
        if self._process is None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [self.python, script("warm.py"), "--store", self.store],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                )
        return self._process

    def _read(self, timeout_s: float) -> list[bytes] | None:
        """Whole lines that have come; None when the preloaded process is gone."""
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(timeout_s):
                return []
        block = os.read(self._process.stdout.fileno(), 65536)
        if not block:
            return None
        *lines, self._unread = (self._unread + block).split(b"\n")
        return [line for line in lines if line.strip()]

    def _all_lost(self) -> list[Exited]:
        assert self._process is not None
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
        self._process = None
        self._unread = b""
        exited = [Exited(step, None, pid, self.log) for step, pid in self._pids.items()]
        self._pids.clear()
        return exited


def script(name: str) -> Path:
    """A file of modal_app that is run by its path."""
    return Path(next(iter(modal_app.__path__))) / name


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number)


def could_not_ask(code: int | None, log: Path) -> SweepError:
    """What is told when the process that has Axolotl in it ends without an answer."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    last = "\n".join(f"  {line}" for line in text.splitlines()[-SHOWN_LINES:])
    how = "" if code is None else f" (code {code})"
    return SweepError(f"Nothing was started: the trainer ended before it could be asked{how}. It said last:\n{last}")
