"""The work of one call on Modal: counted before it begins, watched while it runs, committed and published at its end.

If this raises an error, Modal starts the call again, as often as `deployment.RETRIES` says.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import modal
import modal.exception

from modal_app.cloud import attempts, budget, container, drafts, executions, reuse, stop_requests, volumes
from modal_app.cloud.container import Limits, Watch, WorkerExit
from modal_app.cloud.copier import Copier
from modal_app.cloud.job import CACHE_MOUNT, Job, open_store
from modal_app.cloud.job_files import folder_of, mark_done, volumes_of
from modal_app.cloud.meter import Meter, Reservation
from modal_app.cloud.notices import Spending
from modal_app.cloud.scratch import scratch_of
from modal_app.cloud.searches import answering
from modal_app.store import checkpoints, stop_notes
from modal_app.store.hub import item_of
from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.state import lost, read_outcome
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Share, StepKind, write_atomically
from modal_app.store.verified import withdraw_damaged

Ending = tuple[str, str]
"""An OutcomeStatus, or CONTINUED, and a message."""

CONTINUED = "continued"
"""The call came to its time limit: another call is to continue from here."""


class WorkerDied(Exception):
    """The worker died, but its container did not. The next container may work better."""


def do_step(job: Job, call: str, claims: modal.Dict) -> Ending:
    """Prepare a dataset, train a run or do a follow-up step, unless that is done or has been tried too often.

    Raises WorkerDied, and Superseded."""
    step, folder = job.read_step(), folder_of(job)
    if step.kind is StepKind.PREPROCESS and (damage := withdraw_damaged(open_store(), step.key)):
        print(f"The prepared dataset {step.key} is prepared again: {damage}.")

    def resumable() -> int:
        return drafts.newest_step(folder) if checkpoints.can_resume(step.config) else 0

    def run(attempt: Attempt, watch: Watch, copier: Copier) -> WorkerExit:
        answering_watch = replace(watch, answer=answering(claims, step, attempt))
        with scratch_of(step, attempt.number) as place:
            written = drafts.begin(folder, attempt.number, place)
            with copier.copying(written):
                return container.run_worker(step, attempt.number, answering_watch, job.cores, place)

    return _do(job, call, claims, folder, run, resumable, step.share)


def do_fetch(job: Job, call: str, claims: modal.Dict) -> Ending:
    """Fetch what is on the hub, unless that is done or has been tried too often. Raises WorkerDied, and Superseded."""
    item = item_of(job.name, job.read_step().config)
    folder = folder_of(job)
    if not (CACHE_MOUNT / "hub" / item.snapshot).exists():
        folder.done.unlink(missing_ok=True)  # it has been removed since, to make room

    def run(attempt: Attempt, watch: Watch, copier: Copier) -> WorkerExit:
        with copier.copying(None):
            ended = container.run_fetch(item, watch)
        if (outcome := _outcome_of_fetch(job, attempt, ended)) is not None:
            write_atomically(attempt.result, outcome.to_json())
        return ended

    return _do(job, call, claims, folder, run, lambda: 0)


def _do(
    job: Job,
    call: str,
    claims: modal.Dict,
    folder: StepFolder,
    run: Callable[[Attempt, Watch, Copier], WorkerExit],
    resumable: Callable[[], int],
    share: Share | None = None,
) -> Ending:
    """`resumable`: the step from which the work would continue now. `share`: what it may cost."""
    limits, written = container.time_limits(job.limit_s), volumes_of(job)
    _publish(job, claims, folder, written)  # an earlier container may have died before it could
    if (last := _ended_before(job, call, folder, share)) is not None:
        return _end(job, call, folder, last, written)
    before, number = resumable(), executions.reserve(claims, job, call, folder)
    spending = Spending(claims, job, share, folder)

    def publish(attempt: Attempt) -> None:
        _publish(job, claims, folder, written)
        if folder.done.exists():
            _end(job, call, folder, attempt, written)

    with _counted(job, call, folder, number, written, limits, publish) as (attempt, meter, copier, stop_requested):

        def tick() -> None:
            meter.tick()
            copier.commit_soon()
            spending.tick()
            if executions.is_superseded(claims, job, call, number):
                raise executions.Superseded

        paid = budget.limits(share, folder) if share else Limits()
        too_expensive = paid.stop_at < limits.stop_at  # otherwise its time is over first
        killed = functools.partial(stop_notes.note_kill, attempt)
        ended = run(attempt, Watch(tick, stop_requested, limits.within(paid), killed), copier)
        attempts.note_exit(attempt, ended.pid, ended.code)
        if why := ended.why_stopped(for_budget=too_expensive):
            reuse.doubt(why)
        with meter.copying():
            _publish(job, claims, folder, written)
        cut_off = ended.out_of_time and not attempts.is_at_rung(attempt)
        if cut_off and too_expensive and share:
            budget.fail(share, attempt, _outcome(folder, attempt))
        elif cut_off:
            _judge_stop(job, attempt, _outcome(folder, attempt), advanced=resumable() > before)
        if not folder.done.exists() and attempts.lost_in_a_row(folder) >= job.max_attempts:
            attempts.give_up(folder, attempt)
        meter.end()
        spending.tick(now=True)
        return _end(job, call, folder, attempt, written)


def _ended_before(job: Job, call: str, folder: StepFolder, share: Share | None) -> Attempt | None:
    """The attempt that has the outcome, if the step has succeeded, if this call has ended it before, or if it is not to
    be tried again; None if this call makes an attempt."""
    earlier = folder.attempts()
    said = attempts.failed(folder, call) or attempts.at_rung(folder, call)
    if folder.done.exists() or attempts.is_handed_on(folder, call) or said:
        return said or earlier[-1]
    if attempts.lost_in_a_row(folder) >= job.max_attempts:
        attempts.give_up(folder, earlier[-1])
        return earlier[-1]
    if share and budget.is_spent(share, folder):
        budget.refuse(share, earlier[-1], _outcome(folder, earlier[-1]))
        return earlier[-1]
    return None


@contextlib.contextmanager
def _counted(
    job: Job,
    call: str,
    folder: StepFolder,
    number: int,
    written: Sequence[modal.Volume],
    limits: Limits,
    publish: Callable[[Attempt], None],
) -> Iterator[tuple[Attempt, Meter, Copier, Callable[[BaseException], None]]]:
    """Commit an attempt to the Volume before the block begins, and record a request to stop during the block. `publish`
    is called then, too, if the run has finished: there is time for it, and perhaps this call is never started again.
    """
    attempt = attempts.reserve_attempt(folder, number, call)
    reserved = Reservation(job.cores, job.memory_gib)
    meter = Meter(folder.containers, step=job.name, call=call, attempt=attempt.number, reserved=reserved)
    copier = Copier(lambda: volumes.commit_what_can_be(written), until=limits.copy_until, waiting=meter.copying)

    def stop_requested(request: BaseException) -> None:
        if not isinstance(request, Exception):
            attempts.note_stop_request(attempt, type(request).__name__)
            meter.note()
            copier.commit_soon()
            copier.leave()

    with stop_requests.only_the_first():
        try:
            volumes.commit(written)  # whatever happens to this container, the attempt is counted
            yield attempt, meter, copier, stop_requested
        except BaseException as request:
            if not isinstance(request, Exception):
                attempts.note_stop_request(attempt, type(request).__name__)
                if not isinstance(request, executions.Superseded):  # otherwise another container does it
                    with meter.copying():
                        _try_to_publish(publish, attempt)
            meter.end()  # last: a reader of this record expects nothing more from this container
            if not isinstance(request, Exception):
                volumes.commit_what_can_be(written, volumes.PAUSES_S)
            raise


def _try_to_publish(publish: Callable[[Attempt], None], attempt: Attempt) -> None:
    """An error here does not replace the request to stop: the next call does what is missing."""
    try:
        publish(attempt)
    except (OSError, volumes.VolumeError, modal.exception.Error) as error:
        print(f"A finished run could not be published now: {error}", flush=True)


def _publish(job: Job, claims: modal.Dict, folder: StepFolder, written: Sequence[modal.Volume]) -> None:
    """Make the first complete draft the step's result, unless it has one.

    The draft is on the Volume before it is chosen, so another container can finish this if this one is cut off.
    """
    complete = drafts.complete(folder)
    if folder.done.exists() or not complete:
        return
    volumes.commit(written)
    number = executions.chosen(claims, job, complete[0])
    volumes.reload(written)
    if folder.done.exists():
        return
    if number not in drafts.complete(folder):
        number = complete[0]
        executions.choose_again(claims, job, number)
    drafts.move_files(folder, number)
    volumes.commit(written)
    drafts.declare_done(folder, number)


def _end(job: Job, call: str, folder: StepFolder, attempt: Attempt, written: Sequence[modal.Volume]) -> Ending:
    """Commit how the step has ended, then return that. `attempt`: the attempt that has the outcome, if the step has not
    succeeded."""
    outcome = _outcome(folder, attempt)
    if outcome.status is OutcomeStatus.SUCCEEDED:
        mark_done(job)
    volumes.commit(written)
    if outcome.status is OutcomeStatus.SUCCEEDED:
        if drafts.remove_all(folder) > 1:  # its own one is almost empty: the next commit, of this container, will do
            volumes.commit(written)
        return str(outcome.status), outcome.message
    if attempts.is_handed_on(folder, call):
        return CONTINUED, outcome.message
    if not (attempts.is_final(attempt) or attempts.is_at_rung(attempt)):
        raise WorkerDied(f"{job.name}: {outcome.message}")
    return str(outcome.status), outcome.message


def _outcome(folder: StepFolder, attempt: Attempt) -> Outcome:
    if folder.done.exists():
        now = time.time()
        return Outcome(OutcomeStatus.SUCCEEDED, 0, now, now)
    return read_outcome(attempt.result) or lost(attempt)


def _judge_stop(job: Job, attempt: Attempt, outcome: Outcome, *, advanced: bool) -> None:
    """Record whether another call continues what the stopped worker has saved: only if that is more than before."""
    if outcome.status is OutcomeStatus.STOPPED and advanced:
        attempts.note_out_of_time(attempt)
    elif outcome.status in (OutcomeStatus.STOPPED, OutcomeStatus.LOST) and not advanced:
        attempts.fail_for_time(attempt, outcome, job.limit_s)


def _outcome_of_fetch(job: Job, attempt: Attempt, ended: WorkerExit) -> Outcome | None:
    """None if it was killed."""
    status, reason, message = OutcomeStatus.SUCCEEDED, None, ""
    if ended.code != 0:
        status, reason = OutcomeStatus.FAILED, FailureReason.ERROR
        message = f"{job.name}: the hub did not give it; the call's log says why"
    if ended.out_of_time and ended.code != 0:
        reason, message = FailureReason.TIMEOUT, f"{job.name}: not fetched within {job.limit_s / 3600:g} h"
    elif ended.code < 0:
        return None
    return Outcome(status, attempt.number, attempt.path.stat().st_mtime, time.time(), reason, message)
