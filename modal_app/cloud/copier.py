"""The thread of a container's process that copies what a worker makes to the Volume, and commits it there. So neither
the training nor the loop that watches the worker waits for a Volume.

A checkpoint is copied when it is complete, the newest first. When the worker has ended, the rest follows, and the file
that says how it ended comes last. When the container is asked to stop, only the newest checkpoint is copied, and only
if it fits into the time that is left, as measured by the copies before.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from modal_app.cloud.copies import Copies, size_of
from modal_app.store import checkpoints
from modal_app.store.full_disk import full_disk
from modal_app.store.layout import StepFolder
from modal_app.store.state import read_outcome
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, write_atomically

POLL_S = 2.0
LEAVE_S = 27.0
"""After a request to stop, Modal ends a container within 30 s; its last commit comes after the copies."""


class NoTime(Exception):
    """What is being copied does not fit into the time that is left."""


@dataclass(slots=True)
class _Rate:
    """The rate of the copies so far, each with its commit."""

    bytes: int = 0
    seconds: float = 0.0

    def add(self, size: int, seconds: float) -> None:
        self.bytes += size
        self.seconds += seconds

    def seconds_for(self, size: int) -> float:
        """0 if nothing was measured: then copying is tried until the time is over."""
        return size * self.seconds / self.bytes if self.bytes else 0.0


class Copier:
    """All commits while a worker works happen on its thread. `commit`: raises nothing. `until`: when the time limit of
    its call ends all copying. `waiting`: entered while the container waits for copies after its worker's end.
    `leave_s`: how long copying may go on after a request to stop."""

    def __init__(
        self,
        commit: Callable[[], None],
        *,
        until: float = math.inf,
        waiting: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        poll_s: float = POLL_S,
        leave_s: float = LEAVE_S,
    ) -> None:
        self._commit, self._until, self._waiting = commit, until, waiting
        self._poll_s, self._leave_s = poll_s, leave_s
        self._woken = threading.Event()
        self._commit_wanted = self._worker_ended = self._leaving = False
        self._rate = _Rate()

    def commit_soon(self) -> None:
        """Commit everything that is on the Volume, without waiting for it."""
        self._commit_wanted = True
        self._woken.set()

    def leave(self) -> None:
        """The container was asked to stop."""
        self._until = min(self._until, time.monotonic() + self._leave_s)
        self._leaving = True
        self._woken.set()

    @contextlib.contextmanager
    def copying(self, written: StepFolder | None) -> Iterator[None]:
        """Copy while the block runs, in which the worker writes this draft, and then what is left of it. Without a
        draft, only commit.

        Raises an OSError if a worker has ended by itself and the Volume does not take its files, unless the Volume is
        full.
        """
        pool = ThreadPoolExecutor(1, "copier")
        work = pool.submit(self._work, Copies(written) if written else None)
        try:
            yield
        except BaseException:
            with self._waiting():
                self._end(work)
            raise
        else:
            with self._waiting():
                self._await(work)
        finally:
            pool.shutdown(wait=False)

    def _await(self, work: Future[None]) -> None:
        self._worker_ended = True
        self._woken.set()
        try:
            work.result()
        except BaseException as request:
            if not isinstance(request, Exception):  # asked to stop now
                self.leave()
                self._end(work)
            raise

    def _end(self, work: Future[None]) -> None:
        """Copy after a request to stop, which is raised again: an error of the Volume does not replace it."""
        self._worker_ended = True
        self._woken.set()
        left_s = max(0.0, self._until - time.monotonic()) if self._leaving else None
        with contextlib.suppress(OSError, TimeoutError):
            work.result(left_s)

    def _work(self, copies: Copies | None) -> None:
        while True:
            self._woken.wait(self._poll_s)
            self._woken.clear()
            if self._worker_ended:
                return None if copies is None else self._finish(copies)
            try:
                if copies is not None:
                    self._copy_checkpoints(copies)
            except OSError as error:
                print(f"A checkpoint could not be copied to the Volume now: {error}", flush=True)
            if self._commit_wanted:
                self._commit_wanted = False
                self._commit()

    def _copy_checkpoints(self, copies: Copies) -> None:
        while (checkpoint := self._next(copies)) is not None:
            began, size = time.monotonic(), size_of(checkpoint)
            try:
                copied = copies.copy_checkpoint(checkpoint, lambda left: self._go_on(copies, checkpoint, left))
            except NoTime:
                continue  # the newer one may fit
            if not copied:
                break  # the trainer has just removed it
            if not self._worker_ended:  # otherwise the call commits
                self._commit_wanted = False
                self._commit()
                self._rate.add(size, time.monotonic() - began)
        if not copies.newest_waits():
            copies.remove_gone()

    def _next(self, copies: Copies) -> Path | None:
        """The checkpoint to copy now. If there is little time, none that is older than what is on the Volume."""
        if self._leaving and not copies.newest_waits():
            return None
        return next((one for one in copies.waiting() if self._fits(size_of(one))), None)

    def _go_on(self, copies: Copies, checkpoint: Path, left: int) -> None:
        """Raises NoTime."""
        self._in_time(left)
        if self._leaving:
            at = checkpoints.step_number(checkpoint)
            newer = [one for one in copies.waiting() if checkpoints.step_number(one) > at]
            if any(self._fits(size_of(one)) for one in newer):
                raise NoTime

    def _finish(self, copies: Copies) -> None:
        """Copy what is left, and then the file that says how the attempt has ended."""
        written = copies.written
        # Its worker may have been killed between the two, and has succeeded.
        outcome = read_outcome(written.result_of(copies.attempt)) or read_outcome(written.done)
        try:
            outcome = self._copy_rest(outcome, copies)
        except OSError as error:
            outcome = _not_taken(outcome, error, copies)
        if outcome is not None:  # otherwise it was killed
            write_atomically(copies.attempt.result, outcome.to_json())

    def _copy_rest(self, outcome: Outcome | None, copies: Copies) -> Outcome | None:
        """Returns how the attempt has ended, according to what is on the Volume."""
        if outcome is not None and outcome.status is OutcomeStatus.SUCCEEDED:
            try:
                self._copy_result(copies)
            except NoTime:
                self._copy_checkpoints(copies)
                return _cut_off(outcome, copies)
            return outcome
        self._copy_checkpoints(copies)
        if outcome is not None and outcome.status is not OutcomeStatus.FAILED and copies.newest_waits():
            return _cut_off(outcome, copies)
        return outcome

    def _copy_result(self, copies: Copies) -> None:
        """Raises NoTime."""
        waiting = copies.waiting()
        self._in_time(sum(map(size_of, waiting)) + copies.other_bytes())
        for checkpoint in waiting:
            copies.copy_checkpoint(checkpoint, self._in_time)
        copies.copy_others(self._in_time)
        write_atomically(copies.draft.done, copies.written.done.read_text(encoding="utf-8"))
        copies.remove_gone(finished=True)

    def _in_time(self, left: int) -> None:
        if not self._fits(left):
            raise NoTime

    def _fits(self, size: int) -> bool:
        return time.monotonic() + self._rate.seconds_for(size) <= self._until


def _cut_off(outcome: Outcome, copies: Copies) -> Outcome:
    """There was no time to copy the worker's last files: an earlier checkpoint counts."""
    step = checkpoints.newest_to_resume(copies.draft.model)
    where = f"it continues from step {step}" if step else "it starts over"
    message = f"{outcome.message or 'asked to stop'}, but there was no time to copy what was saved last: {where}"
    return replace(outcome, status=OutcomeStatus.STOPPED, message=message)


def _not_taken(outcome: Outcome | None, error: OSError, copies: Copies) -> Outcome | None:
    """The Volume has not taken the worker's last files. A full Volume ends a run, like a full disk. Raises any other
    error, unless the attempt is lost anyway: another container may get past it."""
    if outcome is None or outcome.status is OutcomeStatus.FAILED:
        print(f"A checkpoint could not be copied to the Volume: {error}", flush=True)
        return outcome
    full = full_disk(error, [copies.draft.files])
    if not full:
        raise error
    return replace(outcome, status=OutcomeStatus.FAILED, reason=FailureReason.DISK, message=full)
