"""Runs a plan on this machine: each dataset once, then every run, as many at a time as fit.

The state of a step is in its folder, not here. A step that another launcher (or the orphan of a killed one) works on is
followed, not started again. Workers outlive the launcher that started them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modal_app.store import stop_notes
from modal_app.store.layout import Attempt, Store
from modal_app.store.read_json import read_json
from modal_app.store.state import Phase, StepState, is_done, observe
from modal_app.store.step import EXIT_HELD, FailureReason, Step, StepKind
from runner.console import terminal
from runner.console.interrupts import further_requests
from runner.executors import step_records
from runner.executors.cards import cards_in_use, lock_cards, on_cards, release
from runner.executors.halving import LocalSearch
from runner.executors.running_steps import RunningStep, steps_to_run
from runner.executors.slots import Slots
from runner.executors.stop_times import stop_message
from runner.executors.workers import Workers
from runner.store.ledger import Event, Ledger, Record
from runner.types import Plan, StepId

POLL_S = 0.2
AT_RUNG = "its run has stopped at a rung"
KILL_GRACE_S = 1.0
"""How long to wait for a worker after killing it."""

Watch = Callable[[], None]
"""Called about five times a second while steps run."""


@dataclass(slots=True)
class LocalExecutor:
    store: Store
    workers: Workers
    slots: Slots
    ledger: Ledger
    card_locks: Path
    _jobs: dict[StepId, RunningStep] = field(default_factory=dict)
    _search: LocalSearch | None = None
    _stopping: bool = False
    _in_use: set[str] | None = None
    """The cards that steps of any launch use, as of the present look; None until they are needed."""
    _has_said_waiting: bool = False

    def execute(self, plan: Plan, watch: Watch) -> None:
        """Run everything that is not done; returns when every step has ended.

        A failed step stops only the runs that need it. KeyboardInterrupt stops the workers that this launcher started
        (they checkpoint first, however long that takes), is recorded, and is raised to the caller. A further Ctrl-C or
        SIGTERM kills them.
        """
        self._jobs = {job.id: job for job in steps_to_run(plan)}
        self._search = LocalSearch.of(plan, self.store)
        try:
            self._end_those_at_rungs()
            self._start_what_is_ready()
            while self._has_work():
                self._reap(POLL_S)
                self._start_what_is_ready()  # before watch(), since a free slot is an idle core
                watch()
        except KeyboardInterrupt:
            self._stop(watch)
            raise
        finally:
            self.workers.close()

    def _start_what_is_ready(self) -> None:
        """A step's folder is read only when the step could start: with a thousand waiting steps, reading every folder
        at every poll would occupy a core that could train.
        """
        self._promote()
        self._in_use = None
        busy = [job for job in self._jobs.values() if job.submitted and not job.ended]
        for job in sorted(self._jobs.values(), key=lambda job: not job.promoted):
            if job.submitted or job.ended or not self._is_due(job, busy):
                continue
            state = self._observe(job)
            if state.phase is Phase.SUCCEEDED:
                self._finish(job, state)
            elif state.phase is Phase.RUNNING:
                self._follow(job, state)
            elif job.followed and state.phase is Phase.FAILED:
                self._finish(job, state)  # the other launcher's failure is this step's: nothing runs twice
            elif self._search and self._search.rung_of(job.step, state) not in (0, job.promoted):
                self._finish(job, state)  # it has stopped since it was followed
            elif self._blocked(job):
                assert job.needs is not None
                self._finish_unbegun(job, step_records.blocked(job.step, job.needs))
            elif (cards := self._lock_cards(job.step)) is not None:
                self._submit(job, cards)
                busy.append(job)

    def _has_work(self) -> bool:
        """Once nothing works any more, look again for a run that goes on; then give up the steps that wait for one."""
        waiting = [job for job in self._jobs.values() if not job.ended]
        if not all(map(self._waits_at_rung, waiting)) or self._promote(always=True):
            return True
        for job in waiting:
            job.ended = True
            self.ledger.append(step_records.of(Event.SKIPPED, job.step, message=AT_RUNG))
        return False

    def _end_those_at_rungs(self) -> None:
        """The runs that have stopped at a rung in an earlier launch have ended, unless they go on."""
        if self._search is None:
            return
        for job in self._jobs.values():
            state = self._observe(job) if job.step.rungs else None
            if state and self._search.rung_of(job.step, state):
                self._finish(job, state)

    def _promote(self, *, always: bool = False) -> bool:
        """Let stopped runs that are among the best now go on; whether there is one. Nothing is read without news."""
        if self._search is None or not (always or self._search.has_news):
            return False
        found = False
        for run, rung in self._search.promoted().items():
            job = self._jobs.get((StepKind.TRAIN, run))
            if job is not None and job.ended and job.at_rung == rung:
                job.ended = job.started = job.followed = False
                job.at_rung, job.promoted, found = 0, rung, True
                self.ledger.append(step_records.of(Event.PROMOTED, job.step, facts={"rung": rung}))
        return found

    def _submit(self, job: RunningStep, cards: dict[str, int]) -> None:
        job.submitted, job.followed = True, False
        job.attempts_before = max((one.number for one in self.store.folder(*job.id).attempts()), default=0)
        step = on_cards(job.step, cards, self.slots.total) if cards else job.step
        try:
            self.ledger.append(step_records.of(Event.SUBMITTED, step))
            self.workers.start(step, list(cards.values()))
        finally:
            release(cards)  # its worker has them now

    def _reap(self, timeout_s: float) -> None:
        for exited in self.workers.wait(timeout_s):
            job = self._jobs[exited.step]
            self._note_start(job, exited.pid)
            state = self._observe(job)
            if exited.code == EXIT_HELD or state.phase is Phase.RUNNING:
                # Another launcher claimed it first, or only the process that forked it has ended.
                job.leave()
                self._follow(job, state)
            elif self._is_tried_again(job, state):
                self._try_again(job, state)
            elif job.started or state.phase is Phase.SUCCEEDED:
                self._finish(job, state)
            elif not self._stopping:
                self._finish_unbegun(job, step_records.unbegun(job.step, exited))
        for job in self._jobs.values():
            if job.submitted and not job.ended:
                self._note_start(job, self.workers.pid(job.id))

    def _is_tried_again(self, job: RunningStep, state: StepState) -> bool:
        """Whether its attempt was out of memory, and the next one takes a smaller micro batch."""
        outcome = state.outcome
        stopped = state.phase is Phase.STOPPED and outcome is not None and outcome.reason is FailureReason.OOM
        return stopped and job.started and not self._stopping

    def _try_again(self, job: RunningStep, state: StepState) -> None:
        job.leave()
        message = state.outcome.message if state.outcome else ""
        self.ledger.append(step_records.of(Event.TRIED_AGAIN, job.step, attempt=state.attempt, message=message))

    def _note_start(self, job: RunningStep, pid: int | None) -> None:
        """Record the attempt that our worker `pid` has started, and not one that another launcher's has started."""
        attempts = self.store.folder(*job.id).attempts()
        if job.started or pid is None or not attempts or attempts[-1].number <= job.attempts_before:
            return
        if read_json(attempts[-1].started).get("pid") == pid:
            job.started = True
            self.ledger.append(step_records.of(Event.STARTED, job.step, attempt=attempts[-1].number, pid=pid))

    def _follow(self, job: RunningStep, state: StepState) -> None:
        if not job.followed:
            job.followed = True
            pid = state.owner.pid if state.owner else None
            self.ledger.append(step_records.of(Event.FOLLOWED, job.step, pid=pid))

    def _finish(self, job: RunningStep, state: StepState) -> None:
        job.end()
        if self._search is not None:
            self._search.note_end(job.step, state)
            job.at_rung = self._search.rung_of(job.step, state)
        if not job.started and not job.followed and state.phase in (Phase.SUCCEEDED, Phase.AT_RUNG):
            self.ledger.append(step_records.of(Event.SKIPPED, job.step))
        else:
            self.ledger.append(step_records.finished(job.step, state))

    def _finish_unbegun(self, job: RunningStep, record: Record) -> None:
        job.end()
        self.ledger.append(record)

    def _stop(self, watch: Watch) -> None:
        """Signal our workers to checkpoint and stop; a further request kills those that have not ended."""
        self._stopping = True
        ours = [job for job in self._jobs.values() if job.submitted and not job.ended]
        with further_requests() as killing:
            self._signal(ours, signal.SIGTERM, stop_notes.note_stop_request, "Ctrl-C or SIGTERM")
            alive = [job.id for job in ours if self._alive(job)]
            if message := stop_message(self.store, alive, "Ctrl-C again"):
                terminal.message(f"Stopping. {message}")
            while any(self._alive(job) for job in ours) and not killing():
                self._reap(POLL_S)
                watch()
            self._signal(ours, signal.SIGKILL, stop_notes.note_kill, "a second Ctrl-C or SIGTERM")
            self._reap(POLL_S)
            deadline = time.monotonic() + KILL_GRACE_S
            while any(self._alive(job) for job in ours) and time.monotonic() < deadline:
                self._reap(POLL_S)
        for job in ours:
            if job.started and not job.ended:
                self._finish(job, self._observe(job))
            elif not job.ended:
                self._finish_unbegun(job, step_records.stopped_unbegun(job.step))

    def _signal(
        self, jobs: Sequence[RunningStep], number: signal.Signals, note: Callable[[Attempt, str], None], by: str
    ) -> None:
        """The note comes first: a worker that dies of the signal leaves no other."""
        for job in jobs:
            attempt = stop_notes.running(self.store.folder(*job.id))
            if attempt and attempt.number > job.attempts_before and self._alive(job):
                note(attempt, by)
            self.workers.signal(job.id, number)

    def _alive(self, job: RunningStep) -> bool:
        return job.submitted and self._observe(job).phase is Phase.RUNNING

    def _blocked(self, job: RunningStep) -> bool:
        """Whether the step that it needs has ended without success, and for good."""
        before = self._jobs.get(job.needs) if job.needs else None
        return before is not None and before.ended and not before.at_rung and not self._is_done(before)

    def _waits_at_rung(self, job: RunningStep) -> bool:
        """Whether it needs a run that has stopped at a rung, and may go on."""
        before = self._jobs.get(job.needs) if job.needs else None
        return before is not None and (bool(before.at_rung) if before.ended else self._waits_at_rung(before))

    def _ready(self, job: RunningStep) -> bool:
        before = self._jobs.get(job.needs) if job.needs else None
        return before is None or (before.ended and self._is_done(before))

    def _is_done(self, job: RunningStep) -> bool:
        return is_done(self.store.folder(*job.id))

    def _is_due(self, job: RunningStep, busy: Sequence[RunningStep]) -> bool:
        """Whether it can start now, or never."""
        return self._room_for(job, busy) and (self._ready(job) or self._blocked(job))

    def _room_for(self, job: RunningStep, busy: Sequence[RunningStep]) -> bool:
        if self.slots.parallel is not None and len(busy) >= self.slots.parallel:
            return False
        taken = sum(self._cost(other.step) for other in busy)
        return not busy or taken + self._cost(job.step) <= self.slots.total

    def _cost(self, step: Step) -> int:
        if step.kind is StepKind.PREPROCESS:
            return 0 if self.slots.cards else 1
        return step.processes

    def _lock_cards(self, step: Step) -> dict[str, int] | None:
        """The cards of a step, locked; none for a step that needs none. None where this launch has enough of them, but
        runs of others use them, such as those of a launcher that was killed."""
        needed = self._cost(step) if self.slots.cards else 0
        if not needed:
            return {}
        if self._in_use is None:
            self._in_use = cards_in_use(self.store)
        cards = lock_cards(self.card_locks, [one for one in self.slots.cards if one not in self._in_use], needed)
        if not cards and not self._has_said_waiting:
            self._has_said_waiting = True
            terminal.message("Waiting for GPUs that runs of other launches use.")
        return cards or None

    def _observe(self, job: RunningStep) -> StepState:
        return observe(self.store, *job.id)
