"""Who does a step on Modal, and what starts when it has ended: entries of one modal.Dict, and nothing else.

Volumes have no locks; putting only what is absent into a Dict is atomic. The entries, for a job named `train/<key>`:

    train/<key>                who does it: a function call's id
    train/<key>/after/<call>   who succeeds a claimant that has ended
    call/train/<key>           the last call that was made for it
    ended/train/<key>          how it ended, and by whom
    waiting/<name>/train/<key> the job as JSON, put down for whoever does <name>
    blocked/train/<key>        why it will not start
"""

from __future__ import annotations

import json
from collections.abc import Iterable

import modal
import modal.exception

from modal_app.remote import Job
from modal_app.step import OutcomeStatus

UNANSWERED = (
    modal.exception.AuthError,
    modal.exception.ClientClosed,
    modal.exception.ConnectionError,
    modal.exception.InternalError,
    modal.exception.PermissionDeniedError,
    modal.exception.ResourceExhaustedError,
    modal.exception.ServiceError,
)
"""What Modal's client raises when the service could not or would not answer."""


def claim(claims: modal.Dict, name: str, me: str) -> str:
    """The call that does the step: this one when nobody has claimed it, or who has is over. A retry is the same call.

    Putting only what is absent is atomic. Of several that find the same dead claimant one succeeds it: the one that
    first puts its name behind the dead one's.
    """
    current = name
    while not claims.put(current, me, skip_if_exists=True):
        holder = claims.get(current)
        if holder == me or is_live(holder):
            return str(holder)
        current = f"{name}/after/{holder}"
    return me


def is_live(call_id: str) -> bool:
    """Whether a function call has not ended yet. Results that expired have.

    Raises what Modal says when it cannot be asked: an unanswered question is no dead call.
    """
    try:
        modal.FunctionCall.from_id(call_id).get(timeout=0)
    except TimeoutError:
        return True
    except UNANSWERED:
        raise
    except Exception:  # the process boundary of another call: however it ended, it has
        return False
    return False


def leave_to(claimant: str, job: Job, claims: modal.Dict) -> None:
    """Put down what waits for the step; when the claimant has ended meanwhile, go on in its place."""
    for next_job in job.then:
        claims.put(f"waiting/{job.name}/{next_job.name}", json.dumps(next_job.as_dict()))
    ended = claims.get(f"ended/{job.name}")
    if ended is not None and ended["by"] == claimant:
        go_on(job, claims, job.then, ended["status"], ended["message"])


def waiting(claims: modal.Dict, name: str) -> list[Job]:
    """What other calls have put down for this step, each taken once."""
    keys = [key for key in claims.keys() if str(key).startswith(f"waiting/{name}/")]  # noqa: SIM118 (not a mapping)
    taken = (claims.pop(key, None) for key in keys)
    return [Job.from_dict(json.loads(text)) for text in taken if text is not None]


def go_on(job: Job, claims: modal.Dict, jobs: Iterable[Job], status: str, message: str) -> None:
    """Start what needed this step, or say why it will not start."""
    for next_job in jobs:
        if status == OutcomeStatus.SUCCEEDED:
            function = modal.Function.from_name(next_job.app, next_job.function)
            if next_job.options:
                function = function.with_options(**next_job.options)
            claims.put(f"call/{next_job.name}", function.spawn(json.dumps(next_job.as_dict())).object_id)
        else:
            _block(next_job, claims, f"{job.name}: {message}")


def _block(job: Job, claims: modal.Dict, cause: str) -> None:
    """Say why a step, and whatever waits for it, will not start."""
    claims.put(f"blocked/{job.name}", cause)
    for next_job in job.then:
        _block(next_job, claims, cause)
