"""What requested a worker to stop, and what killed it: stop.json in the folder of its attempt. Standard library.

The first request lets a worker finish its step and save; the second kills it. A process that kills records it first, so
that a killed run does not look like one that ran out of memory.
"""

from __future__ import annotations

import contextlib
import json
import time

from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.read_json import read_json
from modal_app.store.step import write_atomically

REQUESTED_BY, KILLED_BY = "asked_by", "killed_by"


def note_stop_request(attempt: Attempt, by: str) -> None:
    """`by`: what has requested the worker to stop, as in `asked by {by}`."""
    _note(attempt, REQUESTED_BY, by)


def note_kill(attempt: Attempt, by: str) -> None:
    """`by`: what is about to kill the worker, as in `killed by {by}`. The first one counts."""
    _note(attempt, KILLED_BY, by)


def has_stop_request(attempt: Attempt) -> bool:
    return REQUESTED_BY in read_json(attempt.stop, lenient=True)


def killed_by(attempt: Attempt) -> str:
    """What has killed its worker; empty if unknown."""
    return str(read_json(attempt.stop, lenient=True).get(KILLED_BY, ""))


def running(folder: StepFolder) -> Attempt | None:
    """The newest attempt, if it has no result yet. The caller knows that a worker works on the step."""
    attempts = folder.attempts()
    return attempts[-1] if attempts and not attempts[-1].result.exists() else None


def _note(attempt: Attempt, what: str, by: str) -> None:
    known = read_json(attempt.stop, lenient=True)
    if what not in known:
        with contextlib.suppress(OSError):  # on a full disk, too, a worker must stop
            write_atomically(attempt.stop, json.dumps(known | {what: by, what.replace("_by", "_at"): time.time()}))
