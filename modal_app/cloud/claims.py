"""Which call does a job on Modal, and what starts when the job has ended: entries of one modal.Dict, and nothing else.

Volumes have no locks; putting an entry into a Dict only if it is absent is atomic. For a job named `train/<key>`:

    train/<key>                 its claim: the call that does it or will do it, and the sweep
    train/<key>/after/<call>    the claim of the call that follows that one, which has ended
    ended/train/<key>           how it ended, and by which call
    waiting/<call>/train/<key> for <sweep>
                                a job of a sweep, to start when the job of <call> has ended
    awaited/train/<key>         something waits for its end: jobs of other sweeps, or notices
    cancelled/train/<key>       it was cancelled: not started until it is requested again
    refused/train/<key>         why Modal has not started it

`executions` has two more, `searches` and `rung_entries` have those of searches, `notices` has those of notices. The
caller claims the job for the call that it makes, so the claim counts long before the container is up. A call without a
claim (its client was killed in between) claims for itself. Modal deletes an entry seven days after it was last read or
written, and the result of a call as soon.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import modal
import modal.exception

from modal_app.cloud.connection import lost_connections
from modal_app.cloud.job import Job
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
PASSING = (
    modal.exception.ClientClosed,
    modal.exception.ConnectionError,
    modal.exception.InternalError,
    modal.exception.ResourceExhaustedError,
    modal.exception.ServiceError,
)
"""Of these, what another try may get past."""
SAYS = ("ended", "cancelled", "refused", "published", "awaited")
"""What an entry says of the job whose name follows."""

Look = Callable[[str], Any]
"""Entry -> its value, or None: a Dict's own `get`, or that of a copy."""


def claim(claims: modal.Dict, job: Job, me: str) -> str:
    """The call that does the job: `me` unless another one works on it. A retry is the same call.

    Of several calls that find the same ended call, one follows it: the one that puts its claim first. A call that has
    been followed never does the job again.
    """
    while True:
        key, last = last_claim(claims.get, job.name)
        if last is not None and (last == me or claims.contains(f"{job.name}/after/{me}")):
            return last
        # A call that hands a job to another call may still be running when that one comes here.
        if last is not None and last != job.continues and is_at_work(claims.get, job.name, last):
            return last
        if claims.put(key, _claim_of(job, me), skip_if_exists=True):
            return me


def yield_to_recorded(claims: modal.Dict, job: Job, me: str, recorded: Iterable[str]) -> str:
    """The call that does the job which `me` has claimed: one of the recorded calls if that is live, and only its claim
    had vanished. It then follows `me`."""
    others = [call for call in recorded if call != me]
    if others and not job.continues and _calls(claims.get, job.name) == [me]:
        for call in others:
            if is_live(call):
                claims.put(f"{job.name}/after/{me}", {"call": call, "sweep": job.sweep}, skip_if_exists=True)
                return call
    return me


def last_claim(look: Look, name: str) -> tuple[str, str | None]:
    """Where the next claim of a job goes, and the call that has the last one."""
    key, call = name, None
    while (found := look(key)) is not None:
        call = str(found["call"])
        key = f"{name}/after/{call}"
    return key, call


def _calls(look: Look, name: str) -> list[str]:
    """All calls that have claimed a job, oldest first."""
    key, calls = name, list[str]()
    while (found := look(key)) is not None:
        calls.append(str(found["call"]))
        key = f"{name}/after/{calls[-1]}"
    return calls


def job_of(entry: str) -> str:
    """The name of the job that an entry is about."""
    if (waiting := waiting_in(entry)) is not None:
        return waiting.name
    kind, _, rest = entry.partition("/")
    if kind in ("attempt", "start"):
        return rest.partition("/")[2]
    return rest if kind in SAYS else entry.partition("/after/")[0]


class Waiting(NamedTuple):
    """A job of a sweep that waits for a call."""

    call: str
    name: str
    sweep: str


def waiting_in(entry: str) -> Waiting | None:
    """What waits, if that is what the entry says."""
    kind, _, rest = entry.partition("/")
    call, _, job = rest.partition("/")
    name, _, sweep = job.partition(" for ")
    return Waiting(call, name, sweep) if kind == "waiting" else None


def is_at_work(look: Look, name: str, call: str) -> bool:
    """Whether a call still does the job that it has claimed. Starting other jobs afterwards is not part of it."""
    ended = look(f"ended/{name}")
    return not (ended is not None and ended["by"] == call) and is_live(call)


def is_starting(look: Look, name: str) -> bool:
    """Whether the call that has done a job still lives, and may be starting the jobs that wait for it."""
    _, call = last_claim(look, name)
    ended = look(f"ended/{name}")
    return call is not None and ended is not None and ended["by"] == call and is_live(call)


def is_live(call_id: str, wait_s: float = 0.0) -> bool:
    """Whether a function call has not ended yet. One whose result has expired has ended. `wait_s`: how long to wait for
    its end.

    Raises an error of UNANSWERED if Modal does not answer: then it is not known.
    """
    try:
        with lost_connections():
            modal.FunctionCall.from_id(call_id).get(timeout=wait_s)
    except TimeoutError:
        return True
    except UNANSWERED:
        raise
    except Exception:  # `get` raises what the call itself raised, which may be anything: it has ended
        return False
    return False


def restore_claim(claims: modal.Dict, name: str, sweep: str, call: str) -> None:
    """Put back the claim of a call that does the job. Modal deletes entries, and a user may clear the Dict."""
    claims.put(name, {"call": call, "sweep": sweep}, skip_if_exists=True)


@dataclass(slots=True)
class Caller:
    """Calls jobs, and claims them for the calls. Looks up each function once, and binds it once to the same options."""

    claims: modal.Dict
    _bound: dict[str, modal.Function[..., Any, Any]] = field(default_factory=dict)

    def call(self, job: Job, claim_key: str) -> str:
        """The call's id. If another claim has been put there meanwhile, the call finds it and ends."""
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
    """Add jobs that wait for a job that another call does.

    None: that call starts them. Otherwise it has ended meanwhile, as returned, and may not have seen them.
    """
    if entries := {f"waiting/{call}/{job.name} for {job.sweep}": job.to_json() for job in waiting}:
        claims.update({**entries, **awaited([name])})
    ended = claims.get(f"ended/{name}")
    return ended if ended is not None and ended["by"] == call else None


def awaited(names: Iterable[str]) -> dict[str, bool]:
    """The entries that tell the calls of these jobs that something waits for their end."""
    return {f"awaited/{name}": True for name in names}


def end(claims: modal.Dict, job: Job, me: str, status: str, message: str) -> None:
    """Record how a job has ended. A caller that adds a waiting job later reads this, and starts the job itself."""
    claims.put(f"ended/{job.name}", {"by": me, "status": status, "message": message})


def start_waiting_jobs(claims: modal.Dict, name: str, waiting: Iterable[Job], status: str) -> Mapping[str, Any]:
    """Start what waits for a job, in its own sweep and in others, if that job has succeeded. Returns a copy of the
    entries from before; an empty one if no other job or notice waits for the job's end, since the Dict may have
    thousands of entries, and a GPU waits for them.

    Other calls may have added jobs to an earlier call of this job. Each is started before its entry is removed: after a
    kill in between, the same call starts the missing ones. If Modal refuses a job, that is recorded; raises the refusal
    if another try may get past it.
    """
    waiting = tuple(waiting)
    if not waiting and not claims.contains(f"awaited/{name}"):
        return {}
    entries = dict(claims.items())
    if status == OutcomeStatus.AT_RUNG:
        return entries  # another call of the job may start them
    places = tuple(f"waiting/{call}/" for call in _calls(entries.get, name))
    left = {key: Job.from_json(text) for key, text in entries.items() if key.startswith(places)}
    following: list[tuple[str, Job]] = []
    for job in _each_once((*waiting, *left.values())) if status == OutcomeStatus.SUCCEEDED else ():
        key, last = last_claim(entries.get, job.name)
        # A job that others wait for is called in any case: the call itself adds them to the call that works on it.
        at_work = last is not None and not job.awaited and is_at_work(entries.get, job.name, last)
        if not at_work and f"cancelled/{job.name}" not in entries:
            following.append((key, job))
    passing = call_each(claims, following, entries)
    for key, job in left.items():
        if job.name not in passing:
            claims.pop(key, None)
    for refusal in passing.values():
        raise refusal
    return entries


def _each_once(jobs: Iterable[Job]) -> list[Job]:
    """The calls to make for these jobs, which may be the same ones of several sweeps: a call for each sweep in which
    others wait for the job, since only that call finds them; otherwise one."""
    by_name: dict[str, dict[str, Job]] = {}
    for job in jobs:
        by_name.setdefault(job.name, {})[job.sweep] = job
    each = (list(of_sweeps.values()) for of_sweeps in by_name.values())
    return [job for same in each for job in [one for one in same if one.awaited] or same[:1]]


def call_each(
    claims: modal.Dict, jobs: Iterable[tuple[str, Job]], entries: Mapping[str, Any]
) -> dict[str, modal.exception.Error]:
    """Call jobs, each with the key of the claim that it is to have. What Modal refuses is recorded; returns, by name,
    the refusals that another try may get past. `entries`: a copy of the claims."""
    caller, passing = Caller(claims), dict[str, modal.exception.Error]()
    for key, job in jobs:
        try:
            caller.call(job, key)
        except modal.exception.Error as error:
            note_refusal(claims, job.name, error)
            if isinstance(error, PASSING):
                passing[job.name] = error
        else:
            if f"refused/{job.name}" in entries:
                claims.pop(f"refused/{job.name}", None)
    return passing


def note_refusal(claims: modal.Dict, name: str, error: modal.exception.Error) -> str:
    """Record why Modal has not started a job; returns it."""
    why = f"Modal did not start it: {error}".rstrip(".")
    claims.put(f"refused/{name}", why)
    return why


def continue_in_new_call(claims: modal.Dict, job: Job, me: str) -> str:
    """Make another call that continues the job in place of this one."""
    return Caller(claims).call(replace(job, continues=me), f"{job.name}/after/{me}")


def _claim_of(job: Job, call: str) -> dict[str, str]:
    return {"call": call, "sweep": job.sweep}
