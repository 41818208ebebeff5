"""How often a step is tried on Modal. Standard library.

An attempt is recorded on the Volume before its worker starts, so that one that kills its container at once is counted.
An attempt counts if its container, its worker or one of several ranks died. It does not count if it was asked to stop:
that is not the run's fault, and the call has recorded the request.
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

STOP_REQUEST, OUT_OF_TIME, GIVEN_UP = "asked", "out_of_time", "given_up"


def reserve_attempt(folder: StepFolder, number: int, call: str) -> Attempt:
    """Create an attempt's folder, which names the container and the call that work on it. To be committed at once."""
    attempt = folder.attempt(number)
    attempt.path.mkdir(parents=True)
    about = {"call": call, "container": os.environ.get("MODAL_TASK_ID"), "at": time.time()}
    write_atomically(attempt.container, json.dumps(about))
    return attempt


def note_stop_request(attempt: Attempt, request: str) -> None:
    """Record that the call was asked to stop: by a preemption, a cancellation or its timeout, or because another
    container does the job."""
    _note(attempt, **{STOP_REQUEST: request})


def note_out_of_time(attempt: Attempt) -> None:
    """The call came to its time limit, further than it began: another call is to continue."""
    _note(attempt, **{OUT_OF_TIME: True})


def note_exit(attempt: Attempt, pid: int, code: int) -> None:
    """Record how the worker died, if it left no result of its own. A negative code is a signal."""
    if not attempt.result.exists():
        write_atomically(attempt.exit, json.dumps({"pid": pid, "code": code, "at": time.time()}))


def is_handed_on(folder: StepFolder, call: str) -> bool:
    """Whether this call has come to its time limit already: Modal starts a call again that died before it ended."""
    attempt = newest_of(folder, call)
    return attempt is not None and bool(read_json(attempt.container).get(OUT_OF_TIME))


def failed(folder: StepFolder, call: str) -> Attempt | None:
    """The attempt by which this call has failed already, if it died before it could report that. Another call may try
    the step again."""
    own = [one for one in folder.attempts() if read_json(one.container).get("call") == call and is_final(one)]
    return own[-1] if own else None


def at_rung(folder: StepFolder, call: str) -> Attempt | None:
    """The attempt by which this call has stopped at a rung, if it died before it could report that. Another call may
    continue from there."""
    own = [one for one in folder.attempts() if read_json(one.container).get("call") == call and is_at_rung(one)]
    return own[-1] if own else None


def is_at_rung(attempt: Attempt) -> bool:
    outcome = _outcome(attempt)
    return outcome is not None and outcome.status is OutcomeStatus.AT_RUNG


def is_final(attempt: Attempt) -> bool:
    """Whether an attempt failed in a way that the next one would, too."""
    outcome = _outcome(attempt)
    return outcome is not None and outcome.status is OutcomeStatus.FAILED and not has_died(attempt)


def has_died(attempt: Attempt) -> bool:
    """Whether an attempt left no result, or ended by the death of one of its ranks."""
    outcome = _outcome(attempt)
    if outcome is None:
        return True
    died = outcome.status is OutcomeStatus.FAILED and outcome.reason is FailureReason.LOST
    return died and not read_json(attempt.container).get(GIVEN_UP)


def lost_in_a_row(folder: StepFolder) -> int:
    """How many of the newest attempts have died, back to one that ended in another way."""
    return len(list(_lost(folder)))


def give_up(folder: StepFolder, last: Attempt) -> Outcome:
    """Declare a step failed whose attempts die one after the other: each of them costs money."""
    outcome = _outcome(last) or lost(last)
    message = f"given up after {lost_in_a_row(folder)} attempts in a row: {outcome.message}"
    outcome = replace(outcome, status=OutcomeStatus.FAILED, reason=FailureReason.LOST, message=message)
    _note(last, **{GIVEN_UP: True})
    write_atomically(last.result, outcome.to_json())
    return outcome


def fail_for_time(attempt: Attempt, stopped: Outcome, limit_s: float) -> None:
    """Record a stop as a failure: the next call would get no further."""
    reached = f"reached its time limit of {limit_s / 3600:g} h without getting further than at its start"
    message = f"{reached}; {stopped.message}"
    outcome = replace(stopped, status=OutcomeStatus.FAILED, reason=FailureReason.TIMEOUT, message=message)
    write_atomically(attempt.result, outcome.to_json())


def _lost(folder: StepFolder) -> Iterator[Attempt]:
    for attempt in reversed(folder.attempts()):
        if read_json(attempt.container).get(STOP_REQUEST):
            continue
        if not has_died(attempt):
            return
        yield attempt


def _outcome(attempt: Attempt) -> Outcome | None:
    return read_outcome(attempt.result)


def newest_of(folder: StepFolder, call: str) -> Attempt | None:
    """The newest attempt, if it is this call's."""
    attempt = newest(folder)
    return attempt if attempt and read_json(attempt.container).get("call") == call else None


def newest(folder: StepFolder) -> Attempt | None:
    attempts = folder.attempts()
    return attempts[-1] if attempts else None


def _note(attempt: Attempt, **words: Any) -> None:
    write_atomically(attempt.container, json.dumps(read_json(attempt.container) | words))
