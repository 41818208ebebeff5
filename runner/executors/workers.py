"""The interface of worker processes on this machine, and fresh workers: a new process for each step. Forked workers are
in warm_workers, and both together in mixed_workers.

Each worker leads its own process group: a terminal's Ctrl-C does not reach it, the death of the launcher does not end
it, and stopping it stops all processes that it started.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from modal_app.process.signals import signal_group
from modal_app.store.layout import Store
from modal_app.store.out_of_memory import EXIT_CODE, KillCount, memory_limit
from modal_app.store.sources import RUN
from modal_app.store.state import killed_for, record_exit
from modal_app.store.step import Step
from runner.errors import SweepError
from runner.types import StepId

SHOWN_LINES = 12
"""Of a log, in an error message."""
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker that this process started has ended. `code` is negative for a signal, None when it is unknown."""

    step: StepId
    code: int | None
    pid: int | None
    """None when it is unknown."""
    log: Path | None = None
    """The file with the reason, when that is not in the step's own folder."""


class Workers(Protocol):
    def start(self, step: Step, locks: Sequence[int] = ()) -> None:
        """Start a worker, which keeps the locks of these descriptors until it ends."""
        ...

    def pid(self, step: StepId) -> int | None:
        """The process that works on a started step; None until it is known."""
        ...

    def wait(self, timeout_s: float) -> list[WorkerExit]:
        """The workers that have ended; waits at most `timeout_s` for one."""
        ...

    def signal(self, step: StepId, number: signal.Signals) -> None:
        """Signal a worker's process group; nothing happens when it has ended."""
        ...

    def close(self) -> None:
        """Accept no more steps; live workers continue by themselves."""
        ...


@dataclass(slots=True)
class FreshWorkers:
    """A new Python process for each step."""

    python: Path
    store: Path
    environment: Mapping[str, str]
    _alive: dict[StepId, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def busy(self) -> bool:
        return bool(self._alive)

    def start(self, step: Step, locks: Sequence[int] = ()) -> None:
        kept = ["--locks", *map(str, locks)] if locks else []
        process = subprocess.Popen(
            [self.python, RUN, "worker", "--store", self.store, *kept],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, **self.environment},
            start_new_session=True,
            pass_fds=locks,
        )
        self._alive[step.kind, step.key] = process  # first: a Ctrl-C from here on must find what to stop
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(step.to_json().encode() + b"\n")

    def pid(self, step: StepId) -> int | None:
        process = self._alive.get(step)
        return process.pid if process else None

    def wait(self, timeout_s: float) -> list[WorkerExit]:
        deadline = time.monotonic() + timeout_s
        ended = {step: process.poll() for step, process in self._alive.items()}
        while all(code is None for code in ended.values()) and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, POLL_S))
            ended = {step: process.poll() for step, process in self._alive.items()}
        exited = [WorkerExit(step, code, self._alive[step].pid) for step, code in ended.items() if code is not None]
        for one in exited:
            kind, key = one.step
            del self._alive[one.step]
            assert one.pid is not None
            assert one.code is not None
            record_exit(Store(self.store), kind, key, one.pid, one.code)
        return exited

    def signal(self, step: StepId, number: signal.Signals) -> None:
        if process := self._alive.get(step):
            signal_group(process.pid, number)

    def close(self) -> None:
        self._alive.clear()


def could_not_ask(code: int | None, log: Path, kills: KillCount) -> SweepError:
    """The error for a trainer process that ended without an answer. `kills`: counted since before it started."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    last = "\n".join(f"  {line}" for line in text.splitlines()[-SHOWN_LINES:])
    return SweepError(
        f"Nothing was started: the trainer {_how_it_ended(code, kills)} before it could check the configs. "
        f"Its last output:\n{last}"
    )


def _how_it_ended(code: int | None, kills: KillCount) -> str:
    if code == EXIT_CODE:
        return f"ran out of memory{memory_limit()}"
    if code not in (None, -signal.SIGKILL):
        return f"ended (code {code})"
    out_of_memory = kills.take()
    return killed_for(out_of_memory) if code is not None or out_of_memory else "ended"
