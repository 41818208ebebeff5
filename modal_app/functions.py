"""The functions that run on Modal: fetch, preprocess, train. Text in, a small dict out, everything else on the Volumes.

Plain functions: `deployment` makes them Modal's. Nobody waits in the cloud: a step that has succeeded starts the steps
that need it, each step claims its key first, and a claimed, live key ends a call at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

import modal

from modal_app import remote
from modal_app.claims import claim, end, go_on, leave_to
from modal_app.hub import item_of
from modal_app.layout import StepFolder
from modal_app.remote import Job
from modal_app.state import observe
from modal_app.step import FailureReason, Outcome, OutcomeStatus, StepKind, write_atomically

Ending = tuple[str, str]
"""An OutcomeStatus and a message."""


def fetch(text: str) -> dict[str, Any]:
    """Bring a model, a tokenizer or an adapter at its commit into the shared cache, then start what needs it."""
    return _run(text, _fetch)


def preprocess(text: str) -> dict[str, Any]:
    """Make one dataset, then start the runs that read it."""
    return _run(text, _work)


def train(text: str) -> dict[str, Any]:
    """Train one run; a later call of the same input goes on from its newest whole checkpoint."""
    return _run(text, _work)


def _run(text: str, work: Callable[[Job], Ending]) -> dict[str, Any]:
    job, me = Job.from_json(text), modal.current_function_call_id() or ""
    claims = modal.Dict.from_name(job.claims, create_if_missing=True)
    claimant = claim(claims, job, me)
    _reload(job)
    waiting = job.read_waiting()
    if claimant != me:
        if (ended := leave_to(claims, claimant, job.name, waiting)) is not None:
            go_on(claims, claimant, waiting, ended["status"])
        return {"name": job.name, "status": "claimed", "message": ""}
    status, message = work(job)
    end(claims, job, me, status, message)
    go_on(claims, me, waiting, status)
    return {"name": job.name, "status": status, "message": message}


def _reload(job: Job) -> None:
    """See what has been put on the Volumes since this container started: by its client, or by another call of this
    job that has ended in between."""
    for name in (job.cache_volume, job.runs_volume):
        modal.Volume.from_name(name).reload()


def _work(job: Job) -> Ending:
    """The step itself, unless it is done or has been tried too often; how it ended, committed."""
    step, store = job.read_step(), remote.open_store()
    folder = store.folder(step.kind, step.key)
    volumes = _written(job)
    if not folder.done.exists():
        if (tries := len(folder.attempts())) >= job.max_attempts and _ended_without_a_word(folder):
            _give_up(folder, tries)
        else:
            try:
                remote.run_worker(step, lambda: _commit_what_can_be(volumes))
            finally:
                _commit(volumes)
    outcome = observe(store, step.kind, step.key).outcome
    if outcome is not None and outcome.status is OutcomeStatus.SUCCEEDED:
        _mark_done(job)
    _commit(volumes)
    return (str(outcome.status), outcome.message) if outcome else (str(OutcomeStatus.LOST), "it left no result")


def _fetch(job: Job) -> Ending:
    volumes = _written(job)
    if remote.run_fetch(item_of(job.name, job.read_step().config), lambda: _commit_what_can_be(volumes)) != 0:
        return str(OutcomeStatus.FAILED), f"{job.name}: the hub did not give it; the call's log says why"
    _mark_done(job)
    _commit(volumes)
    return str(OutcomeStatus.SUCCEEDED), ""


def _written(job: Job) -> list[modal.Volume]:
    """The Volumes that a step writes to; the trainers' cache is mounted read-only."""
    names = [job.runs_volume] if job.read_step().kind is StepKind.TRAIN else [job.cache_volume, job.runs_volume]
    return [modal.Volume.from_name(name) for name in names]


def _commit(volumes: list[modal.Volume]) -> None:
    for volume in volumes:
        volume.commit()


def _commit_what_can_be(volumes: list[modal.Volume]) -> None:
    """While a worker has files open, Modal may take a commit and refuse the reload that follows it."""
    with contextlib.suppress(RuntimeError):
        _commit(volumes)


def _mark_done(job: Job) -> None:
    mark = remote.RUNS_MOUNT / remote.DONE / remote.mark_name(job.name)
    if not mark.exists():
        mark.parent.mkdir(exist_ok=True)
        write_atomically(mark, json.dumps({"at": time.time(), "container": os.environ.get("MODAL_TASK_ID")}))


def _ended_without_a_word(folder: StepFolder) -> bool:
    """Whether the last attempts were cut off: one that has said how it ended may be tried again when asked."""
    return not folder.attempts()[-1].result.exists()


def _give_up(folder: StepFolder, tries: int) -> None:
    """An outcome for a step that has killed its container again and again: somebody pays for each time."""
    now = time.time()
    outcome = Outcome(
        OutcomeStatus.FAILED,
        tries,
        now,
        now,
        FailureReason.LOST,
        f"given up after {tries} attempts that ended without a word",
    )
    last = folder.attempt(tries)
    if not last.result.exists():
        write_atomically(last.result, outcome.to_json())
