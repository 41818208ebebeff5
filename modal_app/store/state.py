"""The state of a step, from its folder alone. It only reads, so any process may call it at any time."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from modal_app.store.claim import Owner, holder
from modal_app.store.full_disk import FREE_SOME, is_full
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.out_of_memory import KillCount
from modal_app.store.read_json import read_as, read_json
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind, write_atomically
from modal_app.store.stop_notes import killed_by

REMOTE = "remote.json"
"""In a mirrored step folder: whether the step was still running at the last look at its real folder."""

UNPUBLISHED = "finished, but its files are not published yet; the same command publishes them, and trains nothing"

_kills = KillCount()
"""Counted from the start of the process, so that kills before it are not taken for those of its workers."""


def killed_for(out_of_memory: Any) -> str:
    """How a process ended that signal 9 has killed. `out_of_memory`: None if the kernel does not say."""
    if out_of_memory:
        return "ran out of memory, so the kernel killed it (signal 9)"
    return "was killed by signal 9" + ("; it may have run out of memory" if out_of_memory is None else "")


class Phase(StrEnum):
    ABSENT = "absent"
    """It has not begun."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    AT_RUNG = "stopped at rung"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class StepState:
    phase: Phase
    attempt: int = 0
    """The newest attempt's number; 0 before the first."""
    owner: Owner | None = None
    """The process that works on it, while it runs."""
    outcome: Outcome | None = None
    """How the newest attempt ended."""
    started_at: float | None = None


def observe(store: Store, kind: StepKind, key: str) -> StepState:
    """The state of a step now.

    Success is the `done` file, whatever the lock says. Otherwise the lock is read first, then the attempts. "Not
    locked, and no result" counts only if both are still true at a second look: a worker may end between the two.
    """
    folder = store.folder(kind, key)
    while True:
        if (success := _success(folder)) is not None:
            return StepState(Phase.SUCCEEDED, success.attempt, None, success, success.started_at)
        owner = holder(folder)
        newest = _newest(folder)
        if newest is None:
            if owner is not None:
                return StepState(Phase.RUNNING, 1, owner, started_at=owner.at)
            if holder(folder) is None and _newest(folder) is None:
                return StepState(Phase.ABSENT)
            continue
        outcome = _outcome(newest)
        if owner is not None:
            return _held(newest, owner, outcome)
        if outcome is None and (holder(folder) is not None or _newest(folder) != newest):
            continue
        if outcome is None or outcome.status is OutcomeStatus.SUCCEEDED:  # the latter: it is about to be published
            if read_json(folder.path / REMOTE).get("live"):
                return StepState(Phase.RUNNING, newest.number, started_at=_time(read_json(newest.started), "at"))
            outcome = _outcome(newest) or lost(newest)
        if outcome.status is OutcomeStatus.SUCCEEDED:
            if is_done(folder):
                continue
            outcome = _without_done(folder, newest, outcome)
        return StepState(Phase(outcome.status.value), newest.number, None, outcome, outcome.started_at)


def record_exit(store: Store, kind: StepKind, key: str, pid: int, code: int) -> None:
    """Record how the worker `pid` died (a negative code is a signal), if it left no result of its own."""
    newest = _newest(store.folder(kind, key))
    if newest is None or newest.result.exists() or read_json(newest.started).get("pid") != pid:
        return
    out_of_memory = _kills.take() if code == -signal.SIGKILL else None
    exited = {"pid": pid, "code": code, "at": time.time(), "out_of_memory": out_of_memory}
    with contextlib.suppress(OSError):  # the disk is full, or the run's folder is gone
        write_atomically(newest.exit, json.dumps(exited))


def _newest(folder: StepFolder) -> Attempt | None:
    attempts = folder.attempts()
    return attempts[-1] if attempts else None


def _held(newest: Attempt, owner: Owner, outcome: Outcome | None) -> StepState:
    started = read_json(newest.started)
    if outcome is None:
        return StepState(Phase.RUNNING, newest.number, owner, started_at=_time(started, "at") or owner.at)
    if (started.get("pid"), started.get("start_time")) == (owner.pid, owner.start_time):
        # It has ended and is about to release the lock.
        return StepState(Phase(outcome.status.value), newest.number, None, outcome, outcome.started_at)
    # Just claimed: the next attempt has no folder yet.
    return StepState(Phase.RUNNING, newest.number + 1, owner, started_at=owner.at)


def is_done(folder: StepFolder) -> bool:
    """Whether a step has succeeded. If its `done` file cannot be read, it has not."""
    return _success(folder) is not None


def _success(folder: StepFolder) -> Outcome | None:
    return read_as(folder.done, _success_of)


def _success_of(done: dict[str, Any]) -> Outcome:
    """The content of a `done` file: a run's is its Outcome, a dataset's is the manifest."""
    if "status" in done:
        return Outcome.of(done)
    started_at, finished_at = float(done["started_at"]), float(done["finished_at"])
    return Outcome(OutcomeStatus.SUCCEEDED, int(done["attempt"]), started_at, finished_at, facts=done)


def _outcome(attempt: Attempt) -> Outcome | None:
    return read_outcome(attempt.result)


def read_outcome(path: Path) -> Outcome | None:
    """How an attempt ended; None where there is no result, or one that cannot be read."""
    return read_as(path, Outcome.of)


def lost(attempt: Attempt) -> Outcome:
    """The outcome of an attempt that left no result."""
    exited = read_json(attempt.exit)
    begun = read_json(attempt.container) | read_json(attempt.started)
    started_at = _time(begun, "at") or attempt.path.stat().st_mtime
    last_sign = attempt.log.stat().st_mtime if attempt.log.exists() else started_at
    by = killed_by(attempt)
    return Outcome(
        OutcomeStatus.STOPPED if by else OutcomeStatus.LOST,
        attempt.number,
        started_at,
        max(started_at, _time(exited, "at") or last_sign),
        _reason(by, exited),
        f"killed by {by}" if by else _why_lost(attempt, exited),
    )


def _reason(killed_by: str, exited: dict[str, Any]) -> FailureReason:
    if killed_by:
        return FailureReason.KILLED
    return FailureReason.OOM if exited.get("out_of_memory") else FailureReason.LOST


def _why_lost(attempt: Attempt, exited: dict[str, Any]) -> str:
    if attempt.result.exists():
        return f"its {attempt.result.name} cannot be read"
    full = f"; the disk of {attempt.path} is full. {FREE_SOME}" if is_full(attempt.path) else ""
    return _how_it_died(exited.get("code"), exited.get("out_of_memory")) + full


def _time(raw: dict[str, Any], name: str) -> float | None:
    """Unix seconds; None where a file has something else."""
    value = raw.get(name)
    return float(value) if isinstance(value, int | float) else None


def _gone(folder: StepFolder) -> str:
    """The file is written before the attempt's result, so it was removed or damaged since."""
    return f"it had succeeded, but {folder.done.name} {'cannot be read' if folder.done.exists() else 'is gone'}"


def _without_done(folder: StepFolder, attempt: Attempt, outcome: Outcome) -> Outcome:
    """What a success means if the step has no "done" file, and no process is about to write it."""
    if folder.draft_of(attempt.number).done.exists():
        return replace(outcome, status=OutcomeStatus.STOPPED, reason=FailureReason.UNPUBLISHED, message=UNPUBLISHED)
    return replace(outcome, status=OutcomeStatus.LOST, reason=FailureReason.LOST, message=_gone(folder))


def _how_it_died(code: Any, out_of_memory: Any) -> str:
    match code:
        case _ if not isinstance(code, int):
            return "its process ended and gave no reason"
        case -9:
            return f"its process {killed_for(out_of_memory)}"
        case _ if code < 0:
            return f"its process was killed by signal {-code} ({signal.strsignal(-code)})"
        case _:
            return f"its process ended with code {code} and left no result"
