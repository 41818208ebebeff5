"""The ledger's records of the steps of a launch on this machine."""

from __future__ import annotations

from typing import Any

from modal_app.store.state import StepState
from modal_app.store.step import FailureReason, OutcomeStatus, Step, StepKind
from runner.executors.workers import WorkerExit
from runner.store.ledger import Event, Record
from runner.types import StepId


def of(event: Event, step: Step, **rest: Any) -> Record:
    return Record(event, step.kind, step.key, **rest)


def finished(step: Step, state: StepState) -> Record:
    """The end of a step that has begun."""
    outcome = state.outcome
    return of(
        Event.FINISHED,
        step,
        attempt=state.attempt,
        status=str(outcome.status if outcome else OutcomeStatus.LOST),
        reason=str(outcome.reason or "") if outcome else str(FailureReason.LOST),
        message=outcome.message if outcome else "it was killed, but some of its processes still run",
        facts=outcome.facts if outcome else {},
    )


def blocked(step: Step, needs: StepId) -> Record:
    """The end of a step that cannot start, since the step that it needs has not succeeded."""
    kind, key = needs
    if kind is StepKind.PREPROCESS:
        reason, message = FailureReason.DATA, f"its dataset {key} could not be prepared"
    else:
        reason, message = FailureReason.ERROR, f"it needs {kind} {key}, which has not succeeded"
    return of(Event.FINISHED, step, status=OutcomeStatus.FAILED, reason=reason, message=message)


def unbegun(step: Step, exited: WorkerExit) -> Record:
    """The end of a step whose worker ended before it began."""
    code = "" if exited.code is None else f" (code {exited.code})"
    return of(
        Event.FINISHED,
        step,
        status=OutcomeStatus.LOST,
        reason=FailureReason.LOST,
        message=f"its worker ended before the step started{code}",
        facts={} if exited.log is None else {"log": str(exited.log)},
    )


def stopped_unbegun(step: Step) -> Record:
    return of(Event.FINISHED, step, status=OutcomeStatus.STOPPED, message="stopped before it started")
