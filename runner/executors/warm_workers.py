"""Workers of one command, forked from the preloaded trainer (modal_app.warm)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_app.process.signals import signal_group
from modal_app.store.out_of_memory import KillCount
from modal_app.store.step import Step, StepKind
from modal_app.warm.context import Context
from runner.executors.warm_server import TrainerConnection, WarmRefused, reach
from runner.executors.warm_silence import Silence
from runner.executors.workers import WorkerExit, could_not_ask
from runner.types import StepId

VALIDATION_POLL_S = 1.0
"""A Ctrl-C that comes just before the process sleeps is seen when it wakes."""
AGAIN = "The preloaded trainer was killed before it began; another one is started."


@dataclass(slots=True)
class WarmWorkers:
    """One process that has imported Axolotl forks a worker for each step. It may serve other commands as well."""

    python: Path
    store: Path
    environment: Mapping[str, str]
    """Beyond this process's own."""
    idle_s: float | None = 0.0
    """How long it waits for the next command; None does not change that."""
    say: Callable[[str], None] = field(default=lambda message: None)
    _silence: Silence | None = None
    _reached: TrainerConnection | None = None
    _introduced: bool = False
    _served: bool = False
    _steps: dict[StepId, Step] = field(default_factory=dict)
    _pids: dict[StepId, int] = field(default_factory=dict)
    _unread: bytes = b""
    _kills: KillCount = field(default_factory=KillCount)
    _code: int | None = None
    """The exit code of the preloaded process, once it has ended, if this command had started it."""
    _final: set[StepId] = field(default_factory=set)
    """Steps that are not submitted again if they are lost before they begin."""

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
            self._silence = Silence(self._reached)

    def start(self, step: Step, locks: Sequence[int] = ()) -> None:
        assert not locks, "a fork has no GPU to lock, and its preloaded parent outlives this process"
        self._converse()
        self._steps[step.kind, step.key] = step  # first: a Ctrl-C while it is sent must find what to stop
        self._say({"step": json.loads(step.to_json())})

    def validate(self, folder: Path) -> None:
        """Answer a folder's questions (modal_app.oneshot.validate), before any step is started.

        Raises SweepError when the process gives no answer, WarmRefused when it cannot fork.
        """
        for is_last in (False, True):
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
                if why := self._why_to_give_up(answer_is_due=True):
                    raise WarmRefused(why)
            if not self._hang_up() or is_last:
                raise could_not_ask(self._code, log, self._kills)
            self.say(AGAIN)

    def wait(self, timeout_s: float) -> list[WorkerExit]:
        if not self._steps:
            time.sleep(timeout_s)
            return []
        if self._reached is None:
            self._submit_again()
        events = self._read(timeout_s)
        if events is None:
            return self._lost_or_submitted_again()
        why = self._why_to_give_up(answer_is_due=bool(self._unbegun())) if not events else ""
        exited = self._abandoned(why) if why else []
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
        self._final.add(step)
        if pid := self._pids.get(step):
            signal_group(pid, number)
        elif step in self._steps and self._reached is not None:  # its process is not known yet, if there is one
            self._say({"signal": int(number), "kind": step[0], "key": step[1]})
        else:  # it waits to be submitted again
            self._steps.pop(step, None)

    def take_back(self) -> list[Step]:
        """The steps that were sent to a process that refused them, without those that have been told to stop."""
        steps = [step for name, step in self._steps.items() if name not in self._final]
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
            self._hang_up()
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
        if self._silence is not None:
            self._silence.end()
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
        if events and self._silence is not None:
            self._silence.end(ready=True)
        self._served |= any(event["event"] in ("started", "validated") for event in events)
        return events

    def _why_to_give_up(self, *, answer_is_due: bool) -> str:
        return self._silence.why_to_give_up(answer_is_due=answer_is_due) if self._silence else ""

    def _unbegun(self) -> list[StepId]:
        return [step for step in self._steps if step not in self._pids]

    def _abandoned(self, why: str) -> list[WorkerExit]:
        """Leave the steps that have begun to their folders. Raises WarmRefused if only others are left."""
        begun = [WorkerExit(step, None, pid, self.log) for step, pid in self._pids.items()]
        if not begun:
            raise WarmRefused(why)
        for exited in begun:
            del self._steps[exited.step]
        self._pids.clear()
        return begun

    def _lost_or_submitted_again(self) -> list[WorkerExit]:
        """The steps that are lost since the preloaded process has ended. Those that had not begun, and were not lost
        before, wait to be submitted again if it was killed. If it ended by itself, the next one would, too.
        """
        log = self.log
        was_killed = self._hang_up()
        again = {step for step in self._unbegun() if was_killed and step not in self._final}
        exited = [WorkerExit(step, None, self._pids.get(step), log) for step in self._steps if step not in again]
        self._steps = {name: step for name, step in self._steps.items() if name in again}
        self._pids.clear()
        return exited

    def _submit_again(self) -> None:
        self._final |= set(self._steps)
        self.say(AGAIN)
        self._converse()
        for step in self._steps.values():
            self._say({"step": json.loads(step.to_json())})

    def _hang_up(self) -> bool:
        """Close the connection to a process that has ended. False if it ended by itself, which is known only of one
        that this command has started.
        """
        assert self._reached is not None
        self._reached.socket.close()
        self._code = None
        if self._reached.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._code = self._reached.process.wait(1)
            self._reached.process.returncode = 0
        self._reached = None
        return self._code is None or self._code < 0


def _has_hung_up(line: socket.socket) -> bool:
    """Whether the other end is closed; what it sent before can still be read."""
    poll = select.poll()
    poll.register(line, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))
