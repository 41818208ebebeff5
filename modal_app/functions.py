"""The functions that run on Modal: fetch, preprocess, train. Text in, a small dict out, everything else on the Volumes.

Plain functions: `deployment` makes them Modal's. Nobody waits in the cloud: a step that has succeeded starts the steps
that need it, each step claims its key first, and a claimed, live key ends a call at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from typing import Any

import modal

from modal_app import remote
from modal_app.layout import StepFolder
from modal_app.remote import Job
from modal_app.state import observe
from modal_app.step import FailureReason, Outcome, OutcomeStatus, write_atomically


def preprocess(text: str) -> dict[str, Any]:
    """Make one dataset, then start the runs that read it."""
    return _run(Job.from_dict(json.loads(text)))


def train(text: str) -> dict[str, Any]:
    """Train one run; a later call of the same input goes on from its newest whole checkpoint."""
    return _run(Job.from_dict(json.loads(text)))


def _run(job: Job) -> dict[str, Any]:
    claims = modal.Dict.from_name(job.claims, create_if_missing=True)
    step, me = job.read_step(), modal.current_function_call_id() or ""
    name = f"{step.kind}/{step.key}"
    if (claimant := claim(claims, name, me)) != me:
        _leave_to(claimant, job, claims, name)
        return {"key": step.key, "status": "claimed", "message": ""}
    outcome = _work(job, name)
    status = outcome.status if outcome else OutcomeStatus.LOST
    message = outcome.message if outcome else "its process ended without a word"
    # Said before the waiting are looked up: whoever puts its name down later reads it, and needs nobody.
    claims.put(f"ended/{name}", {"by": me, "status": str(status), "message": message})
    _go_on(job, claims, [*job.then, *_waiting(claims, name)], str(status), message)
    return {"key": step.key, "status": str(status), "message": message}


def _work(job: Job, name: str) -> Outcome | None:
    """The step itself, unless it is done or has been tried too often; its outcome, committed."""
    step, store = job.read_step(), remote.open_store()
    folder = store.folder(step.kind, step.key)
    volumes = [modal.Volume.from_name(volume) for volume in _written(job)]
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
        _mark_done(name)
    _commit(volumes)
    return outcome


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
    """Whether a function call has not ended yet. Results that expired have."""
    try:
        modal.FunctionCall.from_id(call_id).get(timeout=0)
    except TimeoutError:
        return True
    except Exception:  # the process boundary of another call: however it ended, it has
        return False
    return False


def _leave_to(claimant: str, job: Job, claims: modal.Dict, name: str) -> None:
    """Put down what waits for the step; when the claimant has ended meanwhile, go on in its place."""
    for next_job in job.then:
        claims.put(f"waiting/{name}/{next_job.read_step().key}", json.dumps(next_job.as_dict()))
    ended = claims.get(f"ended/{name}")
    if ended is not None and ended["by"] == claimant:
        _go_on(job, claims, job.then, ended["status"], ended["message"])


def _waiting(claims: modal.Dict, name: str) -> list[Job]:
    """What other calls have put down for this step, each taken once."""
    keys = [key for key in claims.keys() if str(key).startswith(f"waiting/{name}/")]  # noqa: SIM118 (not a mapping)
    taken = (claims.pop(key, None) for key in keys)
    return [Job.from_dict(json.loads(text)) for text in taken if text is not None]


def _go_on(job: Job, claims: modal.Dict, waiting: Iterable[Job], status: str, message: str) -> None:
    """Start what needed this step, or say why it will not start."""
    for next_job in waiting:
        step = next_job.read_step()
        if status == OutcomeStatus.SUCCEEDED:
            function = modal.Function.from_name(next_job.app, next_job.function)
            call = function.with_options(**next_job.options).spawn(json.dumps(next_job.as_dict()))
            claims.put(f"call/{step.kind}/{step.key}", call.object_id)
        else:
            claims.put(f"blocked/{step.kind}/{step.key}", f"{job.read_step().key}: {message}")


def _written(job: Job) -> list[str]:
    """The Volumes that a step writes to; the trainers' cache is mounted read-only."""
    return [job.runs_volume] if job.function == "train" else [job.cache_volume, job.runs_volume]


def _commit(volumes: list[modal.Volume]) -> None:
    for volume in volumes:
        volume.commit()


def _commit_what_can_be(volumes: list[modal.Volume]) -> None:
    """While a worker has files open, Modal may take a commit and refuse the reload that follows it."""
    with contextlib.suppress(RuntimeError):
        _commit(volumes)


def _mark_done(name: str) -> None:
    mark = remote.RUNS_MOUNT / remote.DONE / name.replace("/", "-")
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
