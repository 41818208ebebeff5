"""The status of a run of a sweep, with its reason, its message and its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from modal_app.store.layout import Store
from modal_app.store.state import Phase, StepState, observe
from modal_app.store.step import FailureReason, StepKind
from runner.store.ledger import Event, Record, SweepRun


class RunStatus(StrEnum):
    """The status of a run, in the order of the columns of `axosweep status`. Other steps are never blocked or
    removed."""

    SUCCEEDED = "succeeded"
    RUNNING = "running"
    PENDING = "pending"
    """Never started."""
    BLOCKED = "blocked"
    """Its dataset could not be prepared."""
    STOPPED = "stopped"
    """It resumes when it is launched again; one that was cancelled before it started begins then."""
    AT_RUNG = "stopped at rung"
    """Other runs of its search were better at a rung. It resumes if it is among the best later, or if its full training
    is requested."""
    FAILED = "failed"
    LOST = "lost"
    """Its process ended without a result."""
    REMOVED = "removed"
    """Its results were removed."""


_WITH_REASON = (RunStatus.FAILED, RunStatus.STOPPED)
_UNBEGUN = (Phase.STOPPED, Phase.LOST)

Unbegun = Mapping[str, Record]
"""By key: the steps that were cancelled, or whose worker ended, before they started, so that their folders have no
result."""


@dataclass(frozen=True, slots=True)
class RunState:
    status: RunStatus
    reason: FailureReason | None
    """The class of a failure, of a stop or of a loss; None otherwise."""
    message: str
    """One line; empty without a problem."""
    log: str
    """The log of the newest attempt; of a blocked run, that of its dataset. Empty if there is none."""
    rung: int = 0
    """The rung at which it has stopped; 0 otherwise."""


def unbegun(records: Sequence[Record]) -> Unbegun:
    """The steps of the newest launch that were stopped or lost before they started."""
    found: dict[str, Record] = {}
    for record in records:
        if record.event is Event.LAUNCHED:
            found = {}
        elif record.event is Event.FINISHED and record.attempt is None and record.status in _UNBEGUN:
            found[record.key] = record
    return found


def run_state(store: Store, run: SweepRun, state: StepState, lost: Unbegun) -> RunState:
    """`state`: of the run's own folder. If that has no result, the dataset's folder and the ledger are read."""
    if state.phase is Phase.ABSENT:
        if store.folder(StepKind.TRAIN, run.key).removed.exists():
            message = "by axosweep rm; launching it again trains it again"
            return RunState(RunStatus.REMOVED, None, message, "")
        if run.key in lost and lost[run.key].status == Phase.STOPPED:
            return RunState(RunStatus.STOPPED, None, lost[run.key].message, "")
        if (dataset := _failed_dataset(store, run.data_key, lost)) is not None:
            return dataset
        if run.key in lost:
            return RunState(RunStatus.LOST, FailureReason.LOST, lost[run.key].message, _log(lost[run.key]))
    message = state.outcome.message if state.outcome and state.phase is not Phase.SUCCEEDED else ""
    attempts = store.folder(StepKind.TRAIN, run.key).attempts()
    log = str(attempts[-1].log) if attempts else ""
    return RunState(status_of(state), reason_of(state), message, log, rung_of(state))


def status_of(state: StepState) -> RunStatus:
    """The status of a step from its own folder, without its dataset and the ledger."""
    return RunStatus.PENDING if state.phase is Phase.ABSENT else RunStatus(state.phase.value)


def reason_of(state: StepState) -> FailureReason | None:
    return state.outcome.reason if state.outcome else None


def rung_of(state: StepState) -> int:
    """The rung at which a run has stopped; 0 otherwise."""
    return int(state.outcome.facts.get("rung", 0)) if state.outcome and state.phase is Phase.AT_RUNG else 0


def status_text(status: RunStatus, reason: FailureReason | None, rung: int = 0) -> str:
    """Status and reason for people. Programs never parse it.

    >>> status_text(RunStatus.FAILED, FailureReason.OOM), status_text(RunStatus.LOST, FailureReason.LOST)
    ('failed (oom)', 'lost')
    >>> status_text(RunStatus.AT_RUNG, None, 1)
    'stopped at rung 1'
    """
    if status is RunStatus.AT_RUNG and rung:
        return f"{status} {rung}"
    return f"{status} ({reason})" if reason and status in _WITH_REASON else str(status)


def _failed_dataset(store: Store, data_key: str, lost: Unbegun) -> RunState | None:
    """Why a dataset could not be prepared; None if it has not failed."""
    state = observe(store, StepKind.PREPROCESS, data_key)
    if state.phase in (Phase.FAILED, Phase.LOST) and state.outcome is not None:
        message = state.outcome.message
        log = str(store.folder(StepKind.PREPROCESS, data_key).attempt(state.attempt).log)
    elif state.phase is Phase.ABSENT and data_key in lost and lost[data_key].status == Phase.LOST:
        message, log = lost[data_key].message, _log(lost[data_key])
    else:
        return None
    return RunState(RunStatus.BLOCKED, None, f"its dataset {data_key} could not be prepared: {message}", log)


def _log(record: Record) -> str:
    return str(record.facts.get("log", ""))
