"""Who does a job on Modal, and what starts when it has ended: entries of one modal.Dict, and nothing else.

Volumes have no locks; putting only what is absent into a Dict is atomic. The entries, for a job named `train/<key>`:

    train/<key>                 its claim: which call does it or will do it, and for which sweep
    train/<key>/after/<call>    the claim of who follows on that call, which has ended
    ended/train/<key>           how it ended, and by which call
    waiting/<call>/train/<key>  a job to start when what <call> does has ended
    cancelled/train/<key>       somebody has ended it: not started until it is asked for again

Whoever makes a call claims the job for it, so that the call counts from then on, long before its container is up.
A call that no client has claimed (it was killed in between) claims for itself. Modal forgets an entry seven days after
it was last read or written; what a call has said is forgotten as soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import modal
import modal.exception

from modal_app.cloud.container import Job
from modal_app.store.step import OutcomeStatus

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

Look = Callable[[str], Any]
"""Entry -> its value, or None: a Dict's own `get`, or that of a copy."""


def claim(claims: modal.Dict, job: Job, me: str) -> str:
    """The call that does the job: `me` unless another one is at work on it. A retry is the same call.

    Of several that find the same ended call one follows on it: the one that first puts its name behind it. A call that
    has been followed never comes back.
    """
    while True:
        key, last = last_claim(claims.get, job.name)
        if last is not None and (last == me or claims.contains(f"{job.name}/after/{me}")):
            return last
        # Whoever hands a job on may still live when the call that it has made for that comes here.
        if last is not None and last != job.continues and is_at_work(claims.get, job.name, last):
            return last
        if claims.put(key, _claim_of(job, me), skip_if_exists=True):
            return me


def last_claim(look: Look, name: str) -> tuple[str, str | None]:
    """Where the next claim of a job goes, and the call that has the last one."""
    key, call = name, None
    while (found := look(key)) is not None:
        call = str(found["call"])
        key = f"{name}/after/{call}"
    return key, call


def _calls(look: Look, name: str) -> list[str]:
    """Every call that has claimed a job, oldest first."""
    key, calls = name, list[str]()
    while (found := look(key)) is not None:
        calls.append(str(found["call"]))
        key = f"{name}/after/{calls[-1]}"
    return calls


def job_of(entry: str) -> str:
    """The name of the job that an entry is about."""
    if (waiting := call_and_job(entry)) is not None:
        return waiting[1]
    return entry.removeprefix("ended/").removeprefix("cancelled/").partition("/after/")[0]


def call_and_job(entry: str) -> tuple[str, str] | None:
    """Of an entry that lets a job wait: the call that it waits for, and its name. None for any other."""
    kind, _, rest = entry.partition("/")
    call, _, name = rest.partition("/")
    return (call, name) if kind == "waiting" else None


def is_at_work(look: Look, name: str, call: str) -> bool:
    """Whether a call still does the job that it has claimed. What it starts afterwards is no part of that."""
    ended = look(f"ended/{name}")
    return not (ended is not None and ended["by"] == call) and is_live(call)


def is_starting(look: Look, name: str) -> bool:
    """Whether the call that has done a job still lives, and may be starting what waits for it."""
    _, call = last_claim(look, name)
    ended = look(f"ended/{name}")
    return call is not None and ended is not None and ended["by"] == call and is_live(call)


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


@dataclass(slots=True)
class Caller:
    """Calls jobs, and claims them for the calls. Each function is found once, and bound once to the same options."""

    claims: modal.Dict
    _bound: dict[str, modal.Function[..., Any, Any]] = field(default_factory=dict)

    def call(self, job: Job, claim_key: str) -> str:
        """The call's id. When somebody else has put a claim there meanwhile, the call will find that and end."""
        call = str(self._function(job).spawn(job.to_json()).object_id)
        self.claims.put(claim_key, _claim_of(job, call), skip_if_exists=True)
        return call

    def check(self, jobs: Iterable[Job]) -> None:
        """Let Modal bind the options of these jobs without a call, so that it refuses what it cannot rent before
        anything is paid. It publishes no maximum for CPU and memory (modal.com/docs/guide/resources: one "is enforced
        at Function or Sandbox creation time")."""
        for job in jobs:
            self._function(job).hydrate()

    def _function(self, job: Job) -> modal.Function[..., Any, Any]:
        found = f"{job.app}/{job.function}"
        if found not in self._bound:
            self._bound[found] = modal.Function.from_name(job.app, job.function)
        if not job.options:
            return self._bound[found]
        bound = f"{found} {sorted(job.options.items())}"
        if bound not in self._bound:
            self._bound[bound] = self._bound[found].with_options(**job.options)
        return self._bound[bound]


def enqueue_behind(claims: modal.Dict, call: str, name: str, waiting: Iterable[Job]) -> Mapping[str, Any] | None:
    """Put down what waits for a job that another call does.

    None: that call starts it. Else it has ended meanwhile, in the way that is returned, and may not have seen it.
    """
    if entries := {f"waiting/{call}/{job.name}": job.to_json() for job in waiting}:
        claims.update(entries)
    ended = claims.get(f"ended/{name}")
    return ended if ended is not None and ended["by"] == call else None


def end(claims: modal.Dict, job: Job, me: str, status: str, message: str) -> None:
    """Say how a job has ended. Whoever puts down later what waits for it reads this, and starts it without us."""
    claims.put(f"ended/{job.name}", {"by": me, "status": status, "message": message})


def start_waiting_jobs(claims: modal.Dict, name: str, waiting: Iterable[Job], status: str) -> None:
    """Start what has waited for a job, in its own sweep and by others' word, if that has succeeded.

    Others may have left their word with an earlier call of the job, which has handed it on since. Each is started
    before it is forgotten: killed in between, the same call starts what is missing.
    """
    entries = dict(claims.items())
    places = tuple(f"waiting/{call}/" for call in _calls(entries.get, name))
    left = {key: Job.from_json(text) for key, text in entries.items() if key.startswith(places)}
    jobs = {job.name: job for job in (*waiting, *left.values())}
    caller = Caller(claims)
    for job in jobs.values() if status == OutcomeStatus.SUCCEEDED else ():
        key, last = last_claim(entries.get, job.name)
        # A job that others wait for is called in any case: the call itself puts them down for who is at work.
        at_work = last is not None and not job.awaited and is_at_work(entries.get, job.name, last)
        if not at_work and f"cancelled/{job.name}" not in entries:
            caller.call(job, key)
    for key in left:
        claims.pop(key, None)


def continue_in_new_call(claims: modal.Dict, job: Job, me: str) -> str:
    """Call the job once more, to go on in the place of this call, which has come to its time limit."""
    return Caller(claims).call(replace(job, continues=me), f"{job.name}/after/{me}")


def _claim_of(job: Job, call: str) -> dict[str, str]:
    return {"call": call, "sweep": job.sweep}
