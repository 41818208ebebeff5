"""Runs a plan on this machine: each dataset once, then every run, as many at a time as fit.

The state of a step is in its folder, not here. A step that another launcher (or the orphan of a killed one) works on is
followed, not started again. Workers outlive the launcher that started them.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modal_app.store import stop_notes
from modal_app.store.layout import Attempt, Store
from modal_app.store.read_json import read_json
from modal_app.store.state import Phase, StepState, is_done, observe
from modal_app.store.step import EXIT_HELD, FailureReason, OutcomeStatus, Step, StepKind
from runner.console import terminal
from runner.console.interrupts import further_requests
from runner.executors.cards import cards_in_use, on_cards
from runner.executors.halving import LocalSearch
from runner.executors.slots import Slots
from runner.executors.stop_times import stop_message
from runner.executors.workers import WorkerExit, Workers
from runner.store.ledger import Event, Ledger, Record
from runner.types import Plan, StepId

POLL_S = 0.2
AT_RUNG = "its run has stopped at a rung"
KILL_GRACE_S = 1.0
"""How long to wait for a worker after killing it."""


@dataclass(slots=True)
class _RunningStep:
    step: Step
    needs: StepId | None = None
    attempts_before: int = 0
    submitted: bool = False
    started: bool = False
    followed: bool = False
    ended: bool = False
    at_rung: int = 0
    """The rung of its search where it has ended; 0 if it has not."""
    promoted: int = 0
    """The rung that it goes on from."""
    cards: tuple[str, ...] = ()


Watch = Callable[[], None]
"""Called about five times a second while steps run."""


@dataclass(slots=True)
class LocalExecutor:
    store: Store
    workers: Workers
    slots: Slots
    ledger: Ledger
    _jobs: dict[StepId, _RunningStep] = field(default_factory=dict)
    _search: LocalSearch | None = None
    _stopping: bool = False
    _in_use: set[str] | None = None
    """The cards that any launch uses, as of the present look; None until they are needed."""
    _has_said_waiting: bool = False

    def execute(self, plan: Plan, watch: Watch) -> None:
        """Run everything that is not done; returns when every step has ended.

        A failed step stops only the runs that need it. KeyboardInterrupt stops the workers that this launcher started
        (they checkpoint first, however long that takes), is recorded, and is raised to the caller. A further Ctrl-C or
        SIGTERM kills them.
        """
        self._jobs = {(job.step.kind, job.step.key): job for job in _needed(plan)}
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
                self._finish_blocked(job)
            elif self._has_cards(job.step):
                self._submit(job)
                busy.append(job)

    def _has_work(self) -> bool:
        """Once nothing works any more, look again for a run that goes on; then give up the steps that wait for one."""
        waiting = [job for job in self._jobs.values() if not job.ended]
        if not all(map(self._waits_at_rung, waiting)) or self._promote(always=True):
            return True
        for job in waiting:
            job.ended = True
            self.ledger.append(Record(Event.SKIPPED, job.step.kind, job.step.key, message=AT_RUNG))
        return False

    def _end_those_at_rungs(self) -> None:
        """The runs that have stopped at a rung in an earlier launch have ended, unless they go on."""
        for job in self._jobs.values() if self._search else ():
            state = self._observe(job) if job.step.rungs else None
            if self._search and state and self._search.rung_of(job.step, state):
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
                self.ledger.append(Record(Event.PROMOTED, job.step.kind, run, facts={"rung": rung}))
        return found

    def _submit(self, job: _RunningStep) -> None:
        job.submitted, job.followed = True, False
        job.attempts_before = self._attempts(job.step)
        step = job.step
        if self.slots.cards and (cost := self._cost(step)):
            job.cards = tuple(self._free_cards()[:cost])
            step = on_cards(step, job.cards, self.slots.total)
        self.ledger.append(Record(Event.SUBMITTED, step.kind, step.key))
        self.workers.start(step)

    def _reap(self, timeout_s: float) -> None:
        for exited in self.workers.wait(timeout_s):
            job = self._jobs[exited.step]
            self._note_start(job, exited.pid)
            state = self._observe(job)
            if exited.code == EXIT_HELD or state.phase is Phase.RUNNING:
                # Another launcher claimed it first, or only the process that forked it has ended.
                job.submitted, job.started, job.cards = False, False, ()
                self._follow(job, state)
            elif self._is_tried_again(job, state):
                self._try_again(job, state)
            elif job.started or state.phase is Phase.SUCCEEDED:
                self._finish(job, state)
            elif not self._stopping:
                self._finish_unbegun(job, exited)
        for step, job in self._jobs.items():
            if job.submitted and not job.ended:
                self._note_start(job, self.workers.pid(step))

    def _is_tried_again(self, job: _RunningStep, state: StepState) -> bool:
        """Whether its attempt was out of memory, and the next one takes a smaller micro batch."""
        outcome = state.outcome
        stopped = state.phase is Phase.STOPPED and outcome is not None and outcome.reason is FailureReason.OOM
        return stopped and job.started and not self._stopping

    def _try_again(self, job: _RunningStep, state: StepState) -> None:
        job.submitted, job.started, job.cards = False, False, ()
        kind, key, message = job.step.kind, job.step.key, state.outcome.message if state.outcome else ""
        self.ledger.append(Record(Event.TRIED_AGAIN, kind, key, attempt=state.attempt, message=message))

    def _note_start(self, job: _RunningStep, pid: int | None) -> None:
        """Record the attempt that our worker `pid` has started, and not one that another launcher's has started."""
        attempts = self.store.folder(job.step.kind, job.step.key).attempts()
        if job.started or pid is None or not attempts or attempts[-1].number <= job.attempts_before:
            return
        if read_json(attempts[-1].started).get("pid") == pid:
            job.started = True
            number = attempts[-1].number
            self.ledger.append(Record(Event.STARTED, job.step.kind, job.step.key, attempt=number, pid=pid))

    def _follow(self, job: _RunningStep, state: StepState) -> None:
        if not job.followed:
            job.followed = True
            pid = state.owner.pid if state.owner else None
            self.ledger.append(Record(Event.FOLLOWED, job.step.kind, job.step.key, pid=pid))

    def _finish(self, job: _RunningStep, state: StepState) -> None:
        job.ended, job.submitted, job.cards = True, False, ()
        outcome = state.outcome
        if self._search is not None:
            self._search.note_end(job.step, state)
            job.at_rung = self._search.rung_of(job.step, state)
        if job.started is False and not job.followed and state.phase in (Phase.SUCCEEDED, Phase.AT_RUNG):
            self.ledger.append(Record(Event.SKIPPED, job.step.kind, job.step.key))
            return
        self.ledger.append(
            Record(
                Event.FINISHED,
                job.step.kind,
                job.step.key,
                attempt=state.attempt,
                status=str(outcome.status if outcome else OutcomeStatus.LOST),
                reason=str(outcome.reason or "") if outcome else str(FailureReason.LOST),
                message=outcome.message if outcome else "it was killed, but some of its processes still run",
                facts=outcome.facts if outcome else {},
            )
        )

    def _finish_unstarted(
        self,
        job: _RunningStep,
        status: OutcomeStatus,
        message: str,
        reason: str = "",
        facts: Mapping[str, str] | None = None,
    ) -> None:
        job.ended, job.submitted, job.cards = True, False, ()
        kind, key = job.step.kind, job.step.key
        self.ledger.append(
            Record(Event.FINISHED, kind, key, status=status, reason=reason, message=message, facts=facts or {})
        )

    def _finish_blocked(self, job: _RunningStep) -> None:
        assert job.needs is not None
        kind, key = job.needs
        if kind is StepKind.PREPROCESS:
            message, reason = f"its dataset {key} could not be prepared", FailureReason.DATA
        else:
            message, reason = f"it needs {kind} {key}, which has not succeeded", FailureReason.ERROR
        self._finish_unstarted(job, OutcomeStatus.FAILED, message, reason)

    def _finish_unbegun(self, job: _RunningStep, exited: WorkerExit) -> None:
        code = "" if exited.code is None else f" (code {exited.code})"
        message = f"its worker ended before the step started{code}"
        facts = {} if exited.log is None else {"log": str(exited.log)}
        self._finish_unstarted(job, OutcomeStatus.LOST, message, FailureReason.LOST, facts)

    def _stop(self, watch: Watch) -> None:
        """Signal our workers to checkpoint and stop; a further request kills those that have not ended."""
        self._stopping = True
        ours = [job for job in self._jobs.values() if job.submitted and not job.ended]
        with further_requests() as killing:
            self._signal(ours, signal.SIGTERM, stop_notes.note_stop_request, "Ctrl-C or SIGTERM")
            alive = [(job.step.kind, job.step.key) for job in ours if self._alive(job)]
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
                self._finish_unstarted(job, OutcomeStatus.STOPPED, "stopped before it started")

    def _signal(
        self, jobs: Sequence[_RunningStep], number: signal.Signals, note: Callable[[Attempt, str], None], by: str
    ) -> None:
        """The note comes first: a worker that dies of the signal leaves no other."""
        for job in jobs:
            attempt = stop_notes.running(self.store.folder(job.step.kind, job.step.key))
            if attempt and attempt.number > job.attempts_before and self._alive(job):
                note(attempt, by)
            self.workers.signal((job.step.kind, job.step.key), number)

    def _alive(self, job: _RunningStep) -> bool:
        return job.submitted and self._observe(job).phase is Phase.RUNNING

    def _blocked(self, job: _RunningStep) -> bool:
        """Whether the step that it needs has ended without success, and for good."""
        before = self._jobs.get(job.needs) if job.needs else None
        return before is not None and before.ended and not before.at_rung and not self._is_done(before)

    def _waits_at_rung(self, job: _RunningStep) -> bool:
        """Whether it needs a run that has stopped at a rung, and may go on."""
        before = self._jobs.get(job.needs) if job.needs else None
        return before is not None and (bool(before.at_rung) if before.ended else self._waits_at_rung(before))

    def _ready(self, job: _RunningStep) -> bool:
        before = self._jobs.get(job.needs) if job.needs else None
        return before is None or (before.ended and self._is_done(before))

    def _is_done(self, job: _RunningStep) -> bool:
        return is_done(self.store.folder(job.step.kind, job.step.key))

    def _is_due(self, job: _RunningStep, busy: Sequence[_RunningStep]) -> bool:
        """Whether it can start now, or never."""
        return self._room_for(job, busy) and (self._ready(job) or self._blocked(job))

    def _room_for(self, job: _RunningStep, busy: Sequence[_RunningStep]) -> bool:
        if self.slots.parallel is not None and len(busy) >= self.slots.parallel:
            return False
        taken = sum(self._cost(other.step) for other in busy)
        return not busy or taken + self._cost(job.step) <= self.slots.total

    def _cost(self, step: Step) -> int:
        if step.kind is StepKind.PREPROCESS:
            return 0 if self.slots.cards else 1
        return step.processes

    def _has_cards(self, step: Step) -> bool:
        """Whether enough cards are free, where this launch leaves enough of them: the workers of a launcher that was
        killed may still use some."""
        if not self.slots.cards or self._cost(step) <= len(self._free_cards()):
            return True
        if not self._has_said_waiting:
            self._has_said_waiting = True
            terminal.message("Waiting for GPUs that runs of other launches use.")
        return False

    def _free_cards(self) -> list[str]:
        if self._in_use is None:
            self._in_use = cards_in_use(self.store)
        taken = self._in_use | {card for job in self._jobs.values() for card in job.cards}
        return [card for card in self.slots.cards if card not in taken]

    def _observe(self, job: _RunningStep) -> StepState:
        return observe(self.store, job.step.kind, job.step.key)

    def _attempts(self, step: Step) -> int:
        return max((one.number for one in self.store.folder(step.kind, step.key).attempts()), default=0)


def _needed(plan: Plan) -> Iterator[_RunningStep]:
    """The steps that are not done; a dataset only if a pending run reads it."""
    wanted = {planned.run.data_key for planned in plan.pending}
    yield from (_RunningStep(dataset.step) for dataset in plan.datasets if dataset.key in wanted and not dataset.done)
    trains = [planned for planned in plan.pending if planned.trains]
    for planned in trains:
        needs = None if planned.step.own_data else (StepKind.PREPROCESS, planned.run.data_key)
        yield _RunningStep(planned.step, needs)
    yield from (_RunningStep(planned.step, planned.needs) for planned in plan.after if not planned.done)
