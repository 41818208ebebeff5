"""Which process works on a step: one exclusive lock per step folder, which ends with the process that has it.

The lock is flock's: it belongs to an open file, is shared with every process that has a duplicate of its descriptor,
and is freed by the kernel when the last of them dies, however they die. The content of the lock file only names the
owner.

Forked children get no duplicate unless one is passed to them: a trainer's data loaders sometimes outlive it, and do not
work on the step.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from modal_app.store.flock import try_lock, unlock
from modal_app.store.layout import StepFolder

_claims: set[int] = set()
"""Descriptors of this process's locks. Its forked children close them."""


class AlreadyClaimed(Exception):
    """Another live process works on this step."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process, identified so that no later process can be mistaken for it."""

    pid: int
    start_time: int | None
    """Clock ticks between boot and its start; None where /proc is missing."""
    boot_id: str | None
    pgid: int
    sweep: str
    at: float
    """When it took the lock, Unix seconds."""

    def is_alive(self) -> bool:
        """Whether exactly this process still exists on this machine, since its last boot."""
        if self.boot_id != _boot_id():
            return False
        if self.start_time is not None:
            return _start_time(self.pid) == self.start_time
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def this_process(sweep: str) -> Owner:
    return Owner(os.getpid(), _start_time(os.getpid()), _boot_id(), os.getpgid(0), sweep, time.time())


@contextlib.contextmanager
def claim(folder: StepFolder, sweep: str = "") -> Iterator[int]:
    """Lock the step until the block ends, or until every process has ended that has the yielded descriptor or a copy.

    Raises AlreadyClaimed at once if another process has the lock.
    """
    folder.path.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
    _claims.add(descriptor)
    _close_claims_in_children()
    try:
        _lock(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(asdict(this_process(sweep))).encode(), 0)
        yield descriptor
    finally:
        if descriptor in _claims:  # a forked child that gets here does not do this
            _claims.remove(descriptor)
            os.close(descriptor)


def keep(descriptors: Iterable[int]) -> None:
    """Keep inherited locks until this process ends. Its children do not get them."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
        _claims.add(descriptor)
    _close_claims_in_children()


def holder(folder: StepFolder) -> Owner | None:
    """The process that has the step's lock now, or None. Calling this disturbs neither that process nor another
    claim."""
    owner = None
    for _ in range(20):
        try:
            descriptor = os.open(folder.lock, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            if try_lock(descriptor, shared=True):
                return None
            owner = _read(descriptor)
        finally:
            os.close(descriptor)
        if owner is not None and owner.is_alive():
            return owner
        # Just locked, and the new owner has not written its name yet; or the owner is dead and a child has the lock.
        time.sleep(0.005)
    return owner or Owner(0, None, None, 0, "", time.time())


@functools.cache
def _close_claims_in_children() -> None:
    os.register_at_fork(after_in_child=_close_claims)


def _close_claims() -> None:
    while _claims:
        os.close(_claims.pop())


def _lock(descriptor: int) -> None:
    """Take the exclusive lock. A process that only looks shares the lock for a moment, and does not count as an
    owner."""
    while not try_lock(descriptor):
        if not try_lock(descriptor, shared=True):
            raise AlreadyClaimed(str(_read(descriptor)))
        unlock(descriptor)
        time.sleep(random.uniform(0.001, 0.01))


def _read(descriptor: int) -> Owner | None:
    """The named owner; None while it is still writing its name."""
    try:
        return Owner(**json.loads(os.pread(descriptor, 4096, 0)))
    except (ValueError, TypeError):
        return None


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return int(stat.rpartition(")")[2].split()[19])  # field 22; the name in field 2 may contain any text


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
