"""The functions that run on Modal: fetch, preprocess, train, after, notify. Each takes a text and returns a small dict;
everything else is on the Volumes.

They are plain functions: `deployment` makes them Modal's. No call waits in the cloud: a step that has succeeded starts
the steps that need it. Each call claims its job first, and ends at once if another live call has claimed it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import modal
import modal.exception

from modal_app.cloud import reuse, volumes
from modal_app.cloud.call import CONTINUED, Ending, do_fetch, do_step
from modal_app.cloud.claims import (
    PASSING,
    claim,
    continue_in_new_call,
    end,
    enqueue_behind,
    note_refusal,
    start_waiting_jobs,
    yield_to_recorded,
)
from modal_app.cloud.connection import lost_connections
from modal_app.cloud.executions import Superseded, is_open
from modal_app.cloud.job import Job
from modal_app.cloud.job_files import read_ending, recorded_calls, say_not_continued
from modal_app.cloud.notices import deliver, look_after
from modal_app.cloud.searches import entries_of, look_around
from modal_app.halving.ends import note_end
from modal_app.store.step import OutcomeStatus, StepKind


def fetch(text: str) -> dict[str, Any]:
    """Download a model, a tokenizer or an adapter at its commit into the shared cache, then start what needs it."""
    return _run(text, do_fetch)


def preprocess(text: str) -> dict[str, Any]:
    """Prepare one dataset, then start the runs that read it."""
    return _run(text, do_step)


def train(text: str) -> dict[str, Any]:
    """Train one run; a later call for the same run continues from its newest complete checkpoint."""
    return _run(text, do_step)


def after(text: str) -> dict[str, Any]:
    """Merge, infer or evaluate, with a finished run."""
    return _run(text, do_step)


def notify(text: str) -> dict[str, Any]:
    """Send a notice to a webhook."""
    return _with_own_errors(deliver, text)


Work = Callable[[Job, str, modal.Dict], Ending]


def _run(text: str, work: Work) -> dict[str, Any]:
    return _with_own_errors(lambda text: reuse.do_call(Job.from_json(text), lambda: _claim_and_do(text, work)), text)


def _with_own_errors(function: Callable[[str], dict[str, Any]], text: str) -> dict[str, Any]:
    try:
        with lost_connections():
            return function(text)
    except modal.exception.Error as error:
        # If it were raised unchanged, a process that queries this call would take it for Modal not answering:
        # claims.UNANSWERED.
        raise RuntimeError(f"{type(error).__name__}: {error}") from None


def _claim_and_do(text: str, work: Work) -> dict[str, Any]:
    job, me = Job.from_json(text), modal.current_function_call_id() or ""
    claims = _claims_of(job.claims)
    claimant = claim(claims, job, me)
    _see_what_others_wrote(job)
    if claimant == me:
        claimant = yield_to_recorded(claims, job, me, recorded_calls(job))
    waiting = job.read_waiting()
    if claimant != me:
        if (ended := enqueue_behind(claims, claimant, job.name, waiting)) is not None:
            start_waiting_jobs(claims, job.name, waiting, ended["status"])
        look_around(claims, job, me)
        return {"name": job.name, "status": "claimed", "message": ""}
    if claims.contains(f"cancelled/{job.name}"):
        # Cancelling ends the calls that have claims, and this one may have had none yet.
        return {"name": job.name, "status": "cancelled", "message": ""}
    try:
        status, message = work(job, me, claims)
    except Superseded:
        reuse.doubt("another container works on its job")
        if not is_open(claims, job, me):
            return _claim_and_do(text, work)  # the job has ended, or another call does it: this finds out
        # Modal delivered this call twice. The answer of one container ends the call for Modal, and the other container
        # would be forgotten. So a new call continues, and both containers end.
        status, message = CONTINUED, "another container works on the same call"
    if status == CONTINUED:
        _continue(claims, job, me)
        return {"name": job.name, "status": status, "message": message}
    if status == OutcomeStatus.FAILED:  # first: others need not wait for it any more
        _note_ending(claims, job, me)
    end(claims, job, me, status, message)
    entries = start_waiting_jobs(claims, job.name, waiting, status)
    if status != OutcomeStatus.FAILED:  # afterwards: a run that has stopped may be started from here on
        _note_ending(claims, job, me)
    look_around(claims, job, me)
    look_after(claims, entries, job.name)
    return {"name": job.name, "status": status, "message": message}


@functools.cache
def _claims_of(name: str) -> modal.Dict:
    """The Dict of claims, looked up once in this container."""
    return modal.Dict.from_name(name, create_if_missing=True)


def _continue(claims: modal.Dict, job: Job, me: str) -> None:
    """Raises a refusal of Modal that another try may get past. Any other one is what the run's last attempt says."""
    try:
        continue_in_new_call(claims, job, me)
    except modal.exception.Error as error:
        say_not_continued(job, me, note_refusal(claims, job.name, error))
        if isinstance(error, PASSING):
            raise


def _note_ending(claims: modal.Dict, job: Job, me: str) -> None:
    """Record in the run's search, if it has one, how this call has ended."""
    step = job.read_step()
    if (entries := entries_of(claims, step)) and (ending := read_ending(job, me)):
        note_end(entries, step, *ending)


def _see_what_others_wrote(job: Job) -> None:
    """Reload what the client, or another call of this job, has written since this container started. Raises
    VolumeError, and ContainerOver.

    Whether Modal reloads a Volume that is mounted read-only has not been tried. A trainer that is refused continues
    with what it has: normally it was started after its dataset was there. A container that has worked before was not.
    """
    cache, runs = volumes.named(job.cache_volume), volumes.named(job.runs_volume)
    volumes.reload([runs])
    if job.read_step().kind is StepKind.PREPROCESS:
        volumes.reload([cache])
    elif refusals := volumes.reload_what_can_be([cache]):
        reuse.note_stale_cache("; ".join(refusals))
