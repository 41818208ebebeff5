"""What is known of a step, from its folder alone. Pure reading: it can be asked at any time, by anybody."""

from __future__ import annotations

import json
import signal
import time
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from modal_app.store.claim import Owner, holder
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind, write_atomically
from modal_app.store.stop_notes import killed_by

REMOTE = "remote.json"
"""In a mirrored step folder: whether the step went on, when somebody last asked the place where it really is."""


class Phase(StrEnum):
    ABSENT = "absent"
    """Nobody has begun it."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class StepState:
    phase: Phase
    attempt: int = 0
    """The newest attempt's number; 0 before the first."""
    owner: Owner | None = None
    """Who works on it, while it runs."""
    outcome: Outcome | None = None
    """How the newest attempt ended."""
    started_at: float | None = None


def observe(store: Store, kind: StepKind, key: str) -> StepState:
    """The state of a step now.

    Success is the `done` file, whatever the lock says. Otherwise the lock is asked first and the attempts after it,
    and "nobody holds it and it left no result" counts only when both are still so at a second look: a worker may
    end between the two.
    """
    folder = store.folder(kind, key)
    while True:
        if folder.done.exists():
            return _succeeded(folder)
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
        if outcome is None:
            if holder(folder) is not None or _newest(folder) != newest:
                continue
            if read_json(folder.path / REMOTE).get("live"):
                return StepState(Phase.RUNNING, newest.number, started_at=read_json(newest.started).get("at"))
            outcome = _outcome(newest) or lost(newest)
        if outcome.status is OutcomeStatus.SUCCEEDED:
            if folder.done.exists():
                continue
            outcome = replace(outcome, status=OutcomeStatus.LOST, reason=FailureReason.LOST, message=_gone(folder))
        return StepState(Phase(outcome.status.value), newest.number, None, outcome, outcome.started_at)


def record_exit(store: Store, kind: StepKind, key: str, pid: int, code: int) -> None:
    """Note how the worker `pid` died (a negative code is a signal), when it left no result of its own."""
    newest = _newest(store.folder(kind, key))
    if newest is None or newest.result.exists() or read_json(newest.started).get("pid") != pid:
        return
    write_atomically(newest.exit, json.dumps({"pid": pid, "code": code, "at": time.time()}))


def _newest(folder: StepFolder) -> Attempt | None:
    attempts = folder.attempts()
    return attempts[-1] if attempts else None


def _held(newest: Attempt, owner: Owner, outcome: Outcome | None) -> StepState:
    started = read_json(newest.started)
    if outcome is None:
        return StepState(Phase.RUNNING, newest.number, owner, started_at=started.get("at", owner.at))
    if (started.get("pid"), started.get("start_time")) == (owner.pid, owner.start_time):
        # It has ended and is about to let go.
        return StepState(Phase(outcome.status.value), newest.number, None, outcome, outcome.started_at)
    # Just claimed: the next attempt has no folder yet.
    return StepState(Phase.RUNNING, newest.number + 1, owner, started_at=owner.at)


def _succeeded(folder: StepFolder) -> StepState:
    facts = read_json(folder.done)
    outcome = _success(facts)
    return StepState(Phase.SUCCEEDED, outcome.attempt, None, outcome, outcome.started_at)


def _success(done: dict[str, Any]) -> Outcome:
    """What a `done` file says: a run's is its Outcome, a dataset's is the manifest."""
    if "status" in done:
        return Outcome.from_json(json.dumps(done))
    return Outcome(OutcomeStatus.SUCCEEDED, done["attempt"], done["started_at"], done["finished_at"], facts=done)


def _outcome(attempt: Attempt) -> Outcome | None:
    try:
        return Outcome.from_json(attempt.result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def lost(attempt: Attempt) -> Outcome:
    """What can be said of an attempt that left no result."""
    exited = read_json(attempt.exit)
    begun = read_json(attempt.container) | read_json(attempt.started)
    started_at = begun.get("at", attempt.path.stat().st_mtime)
    last_sign = attempt.log.stat().st_mtime if attempt.log.exists() else started_at
    by = killed_by(attempt)
    return Outcome(
        OutcomeStatus.STOPPED if by else OutcomeStatus.LOST,
        attempt.number,
        started_at,
        max(started_at, exited.get("at", last_sign)),
        FailureReason.KILLED if by else FailureReason.LOST,
        f"killed by {by}" if by else _how_it_died(exited.get("code")),
    )


def _gone(folder: StepFolder) -> str:
    """Success is declared before the attempt's result is written, so that somebody has removed it since."""
    return f"it had succeeded, but {folder.done.name} is gone"


def _how_it_died(code: int | None) -> str:
    match code:
        case None:
            return "its process ended without a word"
        case -9:
            return "its process was killed by signal 9; it may have run out of memory"
        case _ if code < 0:
            return f"its process was killed by signal {-code} ({signal.strsignal(-code)})"
        case _:
            return f"its process ended with code {code} and left no result"
