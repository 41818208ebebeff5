"""How often a step is tried on Modal. Standard library.

An attempt is put down on the Volume before its worker starts, so that one that kills its container at once has
counted. What counts is an attempt that died: its container, its worker, or a rank of several. What does not count is
one that Modal asked to stop: that is not the run's doing, and the call has noted it.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.read_json import read_json
from modal_app.store.state import lost, read_outcome
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, write_atomically

ASKED, OUT_OF_TIME, GIVEN_UP = "asked", "out_of_time", "given_up"


def reserve_attempt(folder: StepFolder, call: str) -> Attempt:
    """Make the next attempt's folder, saying which container and call work on it. To be committed at once."""
    earlier = folder.attempts()
    attempt = folder.attempt(earlier[-1].number + 1 if earlier else 1)
    attempt.path.mkdir(parents=True)
    about = {"call": call, "container": os.environ.get("MODAL_TASK_ID"), "at": time.time()}
    write_atomically(attempt.container, json.dumps(about))
    return attempt


def note_asked(attempt: Attempt, request: str) -> None:
    """Modal has asked the call to stop: a preemption, a cancellation, its timeout."""
    _note(attempt, **{ASKED: request})


def note_out_of_time(attempt: Attempt) -> None:
    """The call came to its time limit, further than it began: another one is to go on."""
    _note(attempt, **{OUT_OF_TIME: True})


def note_exit(attempt: Attempt, pid: int, code: int) -> None:
    """How the worker died, when it left no result of its own. A negative code is a signal."""
    if not attempt.result.exists():
        write_atomically(attempt.exit, json.dumps({"pid": pid, "code": code, "at": time.time()}))


def is_handed_on(folder: StepFolder, call: str) -> bool:
    """Whether this call has come to its time limit already: it starts again when it died before it could end."""
    about = _newest_of(folder, call)
    return bool(about.get(OUT_OF_TIME))


def has_failed(folder: StepFolder, call: str) -> bool:
    """Whether this call has failed already, and died before it could say so. Asked for by another call, it may be
    tried again."""
    return bool(_newest_of(folder, call)) and is_final(folder.attempts()[-1])


def is_final(attempt: Attempt) -> bool:
    """Whether an attempt failed in a way that the next one would, too."""
    outcome = _said(attempt)
    return outcome is not None and outcome.status is OutcomeStatus.FAILED and not has_died(attempt)


def has_died(attempt: Attempt) -> bool:
    """Whether an attempt ended without a word, or by the death of one of its ranks."""
    outcome = _said(attempt)
    if outcome is None:
        return True
    died = outcome.status is OutcomeStatus.FAILED and outcome.reason is FailureReason.LOST
    return died and not read_json(attempt.container).get(GIVEN_UP)


def lost_in_a_row(folder: StepFolder) -> int:
    """How many of the newest attempts have died, back to one that ended in another way."""
    return len(list(_lost(folder)))


def give_up(folder: StepFolder) -> Outcome:
    """Declare a step failed whose attempts die one after the other: somebody pays for each of them."""
    last = folder.attempts()[-1]
    outcome = _said(last) or lost(last)
    message = f"given up after {lost_in_a_row(folder)} attempts in a row: {outcome.message}"
    outcome = replace(outcome, status=OutcomeStatus.FAILED, reason=FailureReason.LOST, message=message)
    _note(last, **{GIVEN_UP: True})
    write_atomically(last.result, outcome.to_json())
    return outcome


def fail_for_time(attempt: Attempt, stopped: Outcome, limit_s: float) -> None:
    """What the worker reported as a stop is a failure: at the next call's end it would be where it is now."""
    message = f"came to its time limit of {limit_s / 3600:g} h no further than it began; {stopped.message}"
    outcome = replace(stopped, status=OutcomeStatus.FAILED, reason=FailureReason.TIMEOUT, message=message)
    write_atomically(attempt.result, outcome.to_json())


def _lost(folder: StepFolder) -> Iterator[Attempt]:
    for attempt in reversed(folder.attempts()):
        if read_json(attempt.container).get(ASKED):
            continue
        if not has_died(attempt):
            return
        yield attempt


def _said(attempt: Attempt) -> Outcome | None:
    return read_outcome(attempt.result)


def _newest_of(folder: StepFolder, call: str) -> dict[str, Any]:
    """What is known of the newest attempt, when it is this call's."""
    attempts = folder.attempts()
    about = read_json(attempts[-1].container) if attempts else {}
    return about if about.get("call") == call else {}


def _note(attempt: Attempt, **words: Any) -> None:
    write_atomically(attempt.container, json.dumps(read_json(attempt.container) | words))
