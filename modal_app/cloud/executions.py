"""Which container works on a job, if Modal delivers its call to more than one: two more kinds of entries of the Dict.

    attempt/<n>/train/<key>     which container makes attempt n
    published/train/<key>       the attempt whose draft is the result

Both are put only if absent: no two containers make the same attempt, and the first complete draft is the result.
"""

from __future__ import annotations

import os
import secrets
from typing import Any

import modal
import modal.exception

from modal_app.cloud.claims import last_claim, restore_claim
from modal_app.cloud.connection import lost_connections
from modal_app.cloud.job import Job
from modal_app.store.layout import StepFolder


class Superseded(BaseException):
    """Another container has begun the same job, or has ended it. Stops the worker as a preemption does."""


def reserve(claims: modal.Dict, job: Job, call: str, folder: StepFolder) -> int:
    """The number of an attempt that is this container's alone, above all that are in the Dict or on the Volume."""
    entry = {"call": call, "container": os.environ.get("MODAL_TASK_ID"), "nonce": secrets.token_hex(8)}
    number = max((one.number for one in folder.attempts()), default=0) + 1
    while not put_if_absent(claims, f"attempt/{number}/{job.name}", entry):
        number += 1
    return number


def is_superseded(claims: modal.Dict, job: Job, call: str, number: int) -> bool:
    """Whether attempt `number` is to stop. While Modal does not answer, it is not."""
    try:
        with lost_connections():
            return not is_open(claims, job, call) or claims.contains(f"attempt/{number + 1}/{job.name}")
    except modal.exception.Error:
        return False


def is_open(claims: modal.Dict, job: Job, call: str) -> bool:
    """Whether the job is still this call's, and has not ended. A claim that has vanished is put back."""
    _, last = last_claim(claims.get, job.name)
    if last is None:
        restore_claim(claims, job.name, job.sweep, call)
    ended = claims.get(f"ended/{job.name}")
    return last in (None, call) and not (ended is not None and ended["by"] == call)


def chosen(claims: modal.Dict, job: Job, number: int) -> int:
    """The attempt whose draft is to be published: this complete one, unless one was chosen before."""
    key = f"published/{job.name}"
    return number if claims.put(key, number, skip_if_exists=True) else int(claims.get(key, number))


def choose_again(claims: modal.Dict, job: Job, number: int) -> None:
    """Choose another one, if the draft that was chosen has been removed."""
    claims.put(f"published/{job.name}", number)


def put_if_absent(claims: modal.Dict, key: str, entry: dict[str, Any]) -> bool:
    """Modal's client repeats a request whose answer was lost, so the entry may already exist and be ours."""
    return claims.put(key, entry, skip_if_exists=True) or claims.get(key) == entry
