"""The faults of modal_soak.py: what can happen to a sweep on the local Modal, and to which of its runs.

A run is given up after three counted deaths in a row, so none gets more than two: whatever may count as one is counted
here as one.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modal_app.cloud.job import Job
from tests.modal_server import ModalServer

MOST_DEATHS = 2
REFUSALS_FOR_GOOD = 5
"""A commit is tried four times, and the client commits once more when its container ends."""


@dataclass(frozen=True)
class Target:
    """A live container that works on a run, or starts to."""

    key: str
    task: str
    call: str


@dataclass(frozen=True)
class Hit:
    """One fault. Without a key, it may have met every run that was at work between the two times."""

    kind: str
    at: float
    until: float
    key: str = ""
    task: str = ""
    detail: str = ""


@dataclass
class Faults:
    """Draws one fault after the other."""

    server: ModalServer
    claims: str
    drawn: random.Random
    restart_client: Callable[[], None]
    hits: list[Hit] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    _preempted: set[str] = field(default_factory=set)
    _over_at: float = 0.0
    _end: Callable[[], None] | None = None

    def step(self) -> None:
        """End an outage whose time has come."""
        if self._end and time.time() >= self._over_at:
            self._end()
            self._end = None

    def end(self) -> None:
        """End an outage now."""
        self._over_at = 0.0
        self.step()

    def strike(self) -> Hit | None:
        """One fault, of a kind that is possible now."""
        kinds = [self._kill, self._crash, self._deliver_twice, self._preempt, self._refuse_commit]
        kinds += [self._be_unavailable, self._drop_connections, self._lose_entries, self._kill_client]
        self.drawn.shuffle(kinds)
        for kind in kinds:
            if (hit := kind()) is not None:
                self.hits.append(hit)
                return hit
        return None

    def counts(self) -> dict[str, int]:
        return dict(sorted(Counter(hit.kind for hit in self.hits).items()))

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(hit) for hit in self.hits]

    def targets(self) -> list[Target]:
        """Containers that have a run's input."""
        live = {task.id for task in self.server.tasks("train") if not task.ended_at and task.inputs}
        calls = [call for call in self.server.function_calls("train") if live & set(call.tasks)]
        found = []
        for call in calls:
            key = Job.from_json(self.server.argument(call.id)).name.partition("/")[2]
            found += [Target(key, task, call.id) for task in call.tasks if task in live]
        return sorted(found, key=lambda one: (one.key, one.task))

    def _mortal(self) -> Target | None:
        """A container that may be lost."""
        mortal = [one for one in self.targets() if self.deaths[one.key] < MOST_DEATHS]
        return self.drawn.choice(mortal) if mortal else None

    def _kill(self) -> Hit | None:
        if (target := self._mortal()) is None:
            return None
        self.server.kill(target.task)
        self.deaths[target.key] += 1
        return _hit("container killed", target)

    def _crash(self) -> Hit | None:
        if (target := self._mortal()) is None or (pid := _worker_of(target.task)) is None:
            return None
        number = self.drawn.choice([signal.SIGSEGV, signal.SIGKILL])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        self.deaths[target.key] += 1
        return _hit("worker crashed", target, number.name)

    def _deliver_twice(self) -> Hit | None:
        targets = self.targets()
        if not targets:
            return None
        target = self.drawn.choice(targets)
        self.server.redeliver(target.call)
        return _hit("delivered twice", target)

    def _preempt(self) -> Hit | None:
        """Not during an outage: a request to stop that cannot be committed stays unknown, and the attempt counts."""
        targets = [one for one in self.targets() if one.task not in self._preempted]
        if self._end or not targets:
            return None
        target = self.drawn.choice(targets)
        self.server.preempt(target.task)
        self._preempted.add(target.task)
        return _hit("preempted", target)

    def _refuse_commit(self) -> Hit | None:
        target = self._mortal()
        if target is None:
            return None
        times = REFUSALS_FOR_GOOD if self.drawn.random() < 0.3 else 1
        self.deaths[target.key] += times > 1
        for nth in range(1, times + 1):
            self.server.fail("VolumeCommit", nth=nth, caller=target.task, message="conflict: the commit was refused")
        return _hit("commit refused", target, "once" if times == 1 else "for good")

    def _be_unavailable(self) -> Hit | None:
        if not self._calm():
            return None
        self.server.set_unavailable(True)
        return self._until("unavailable", self.drawn.uniform(1.0, 6.0), lambda: self.server.set_unavailable(False))

    def _drop_connections(self) -> Hit | None:
        if not self._calm():
            return None
        self.server.drop_connections()
        return self._until("connections dropped", self.drawn.uniform(1.0, 4.0), self.server.accept_connections)

    def _lose_entries(self) -> Hit | None:
        share = self.drawn.choice([0.3, 1.0])
        lost = self.server.lose_entries(self.claims, lambda key: self.drawn.random() < share)
        now = time.time()
        return Hit("Dict entries lost", now, now, detail=f"{'all' if share == 1.0 else 'some'}: {lost}")

    def _kill_client(self) -> Hit | None:
        self.restart_client()
        now = time.time()
        return Hit("client killed", now, now)

    def _until(self, kind: str, seconds: float, end: Callable[[], None]) -> Hit:
        now = time.time()
        self._over_at, self._end = now + seconds, end
        return Hit(kind, now, now + seconds, detail=f"{seconds:.1f} s")

    def _calm(self) -> bool:
        """Whether Modal is available, and every preempted container has committed."""
        live = {task.id for task in self.server.tasks("train") if not task.ended_at}
        return self._end is None and not self._preempted & live


def _hit(kind: str, target: Target, detail: str = "") -> Hit:
    now = time.time()
    return Hit(kind, now, now, target.key, target.task, detail)


def _worker_of(task: str) -> int | None:
    """The worker process of a container, as this machine sees it."""
    return next((pid for pid in processes_of({task}) if b"worker" in _read(pid, "cmdline").split(b"\0")), None)


def processes_of(tasks: set[str]) -> list[int]:
    """The live processes of these containers."""
    wanted = {f"MODAL_TASK_ID={task}".encode() for task in tasks}
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]
    return [pid for pid in pids if wanted & set(_read(pid, "environ").split(b"\0"))]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
