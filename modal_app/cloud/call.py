"""The work of one call on Modal: counted before it begins, watched while it goes on, committed when it has ended.

What is raised here lets Modal start the call again, as often as `deployment.RETRIES` says.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import modal

from modal_app.cloud import attempts, budget, container, volumes
from modal_app.cloud.container import Job, Limits, Watch, WorkerExit
from modal_app.cloud.meter import Meter, Reservation
from modal_app.store import checkpoints, stop_notes
from modal_app.store.hub import FETCH, item_of
from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.state import lost
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Share, StepKind, write_atomically

Ending = tuple[str, str]
"""An OutcomeStatus, or CONTINUED, and a message."""

CONTINUED = "continued"
"""The call came to its time limit: another one is to go on from here."""


class WorkerDied(Exception):
    """The worker ended without a word, its container did not. The next container may be a better one."""


def do_step(job: Job, call: str) -> Ending:
    """Prepare a dataset, train a run or do what comes after it, unless that is done or has been tried too often.

    Raises WorkerDied."""
    step, store = job.read_step(), container.open_store()
    folder = store.folder(step.kind, step.key)

    def resumable() -> int:
        return 0 if step.config.get("save_only_model") else checkpoints.newest_step(folder.model)

    def run(attempt: Attempt, watch: Watch) -> WorkerExit:
        return container.run_worker(step, watch, job.cores)

    return _do(job, call, folder, run, resumable, step.share)


def do_fetch(job: Job, call: str) -> Ending:
    """Fetch what is on the hub, unless that is done or has been tried too often. Raises WorkerDied."""
    item = item_of(job.name, job.read_step().config)
    folder = StepFolder(container.RUNS_MOUNT / container.FETCHED / container.mark_name(job.name), done=_mark(job))
    if not (container.CACHE_MOUNT / "hub" / item.snapshot).exists():
        folder.done.unlink(missing_ok=True)  # somebody has made room since

    def run(attempt: Attempt, watch: Watch) -> WorkerExit:
        ended = container.run_fetch(item, watch)
        if (outcome := _outcome_of_fetch(job, attempt, ended)) is not None:
            write_atomically(attempt.result, outcome.to_json())
        return ended

    return _do(job, call, folder, run, lambda: 0)


def _do(
    job: Job,
    call: str,
    folder: StepFolder,
    run: Callable[[Attempt, Watch], WorkerExit],
    resumable: Callable[[], int],
    share: Share | None = None,
) -> Ending:
    """`resumable`: how far the work would be, if it began again now. `share`: what it may cost."""
    limits, written = container.time_limits(job.limit_s), _written(job)
    if folder.done.exists() or attempts.is_handed_on(folder, call) or attempts.has_failed(folder, call):
        return _end(job, call, folder, written)
    if attempts.lost_in_a_row(folder) >= job.max_attempts:
        attempts.give_up(folder)
        return _end(job, call, folder, written)
    if share and budget.is_spent(share, folder):
        budget.fail(share, folder.attempts()[-1], _outcome(folder))
        return _end(job, call, folder, written)
    before = resumable()
    with _counted(job, call, folder, written) as (attempt, meter, asked):

        def tick() -> None:
            meter.tick()
            volumes.commit_what_can_be(written)

        paid = budget.limits(share, folder) if share else Limits()
        too_dear = paid.stop_at < limits.stop_at  # else its time is over first
        killed = functools.partial(stop_notes.note_kill, attempt)
        ended = run(attempt, Watch(tick, asked, paid if too_dear else limits, killed))
        attempts.note_exit(attempt, ended.pid, ended.code)
        if ended.out_of_time and too_dear and share:
            budget.fail(share, attempt, _outcome(folder))
        elif ended.out_of_time:
            _judge_stop(job, folder, attempt, advanced=resumable() > before)
        if not folder.done.exists() and attempts.lost_in_a_row(folder) >= job.max_attempts:
            attempts.give_up(folder)
        meter.end()
        return _end(job, call, folder, written)


@contextlib.contextmanager
def _counted(
    job: Job, call: str, folder: StepFolder, written: Sequence[modal.Volume]
) -> Iterator[tuple[Attempt, Meter, Callable[[BaseException], None]]]:
    """An attempt that is on the Volume from its beginning to its end, and says so when Modal asks it to stop."""
    attempt = attempts.reserve_attempt(folder, call)
    reserved = Reservation(job.cores, job.memory_gib)
    meter = Meter(folder.containers, step=job.name, call=call, attempt=attempt.number, reserved=reserved)

    def asked(request: BaseException) -> None:
        if not isinstance(request, Exception):
            attempts.note_asked(attempt, type(request).__name__)
            meter.note()
            volumes.commit_what_can_be(written)

    try:
        volumes.commit(written)  # whatever becomes of this container, it has counted
        yield attempt, meter, asked
    except BaseException as request:
        meter.end()
        if not isinstance(request, Exception):
            attempts.note_asked(attempt, type(request).__name__)
            volumes.commit_what_can_be(written, volumes.PAUSES_S)
        raise


def _end(job: Job, call: str, folder: StepFolder, written: Sequence[modal.Volume]) -> Ending:
    """Commit how it has ended, then say it."""
    outcome = _outcome(folder)
    if outcome.status is OutcomeStatus.SUCCEEDED:
        _mark_done(job)
    volumes.commit(written)
    if attempts.is_handed_on(folder, call):
        return CONTINUED, outcome.message
    if outcome.status is not OutcomeStatus.SUCCEEDED and not attempts.is_final(folder.attempts()[-1]):
        raise WorkerDied(f"{job.name}: {outcome.message}")
    return str(outcome.status), outcome.message


def _outcome(folder: StepFolder) -> Outcome:
    if folder.done.exists():
        now = time.time()
        return Outcome(OutcomeStatus.SUCCEEDED, 0, now, now)
    last = folder.attempts()[-1]
    return Outcome.from_json(last.result.read_text(encoding="utf-8")) if last.result.exists() else lost(last)


def _judge_stop(job: Job, folder: StepFolder, attempt: Attempt, *, advanced: bool) -> None:
    """We asked the worker to stop: another call goes on with what it has saved, if that is more than before."""
    outcome = _outcome(folder)
    if outcome.status is OutcomeStatus.STOPPED and advanced:
        attempts.note_out_of_time(attempt)
    elif outcome.status in (OutcomeStatus.STOPPED, OutcomeStatus.LOST) and not advanced:
        attempts.fail_for_time(attempt, outcome, job.limit_s)


def _outcome_of_fetch(job: Job, attempt: Attempt, ended: WorkerExit) -> Outcome | None:
    """None when it was killed."""
    status, reason, message = OutcomeStatus.SUCCEEDED, None, ""
    if ended.code != 0:
        status, reason = OutcomeStatus.FAILED, FailureReason.ERROR
        message = f"{job.name}: the hub did not give it; the call's log says why"
    if ended.out_of_time and ended.code != 0:
        reason, message = FailureReason.TIMEOUT, f"{job.name}: not fetched within {job.limit_s / 3600:g} h"
    elif ended.code < 0:
        return None
    return Outcome(status, attempt.number, attempt.path.stat().st_mtime, time.time(), reason, message)


def _written(job: Job) -> list[modal.Volume]:
    """The Volumes that a step writes to, in the order in which they are committed: the marks last.

    The trainers' cache is mounted read-only.
    """
    names = [job.runs_volume] if _leaves_the_cache(job) else [job.cache_volume, job.runs_volume]
    return [modal.Volume.from_name(name) for name in names]


def _leaves_the_cache(job: Job) -> bool:
    return job.function != FETCH and job.read_step().kind is not StepKind.PREPROCESS


def _mark(job: Job) -> Path:
    return container.RUNS_MOUNT / container.DONE / container.mark_name(job.name)


def _mark_done(job: Job) -> None:
    mark = _mark(job)
    if not mark.exists():
        mark.parent.mkdir(exist_ok=True)
        write_atomically(mark, json.dumps({"at": time.time(), "container": os.environ.get("MODAL_TASK_ID")}))
