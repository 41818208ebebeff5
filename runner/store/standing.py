"""How a run of a sweep stands, in a word, with the reason and the log that says more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from modal_app.store.layout import Store
from modal_app.store.state import Phase, StepState, observe
from modal_app.store.step import StepKind
from runner.store.ledger import Event, Record, SweepRun

REMOVED_WORD = "removed"
"""Of a run whose results somebody has removed."""

Unbegun = Mapping[str, Record]
"""By key: the steps whose worker ended before it began, so that their folders cannot tell."""


@dataclass(frozen=True, slots=True)
class Standing:
    word: str
    message: str
    log: str
    """The newest attempt's; of a run that its dataset blocks, that dataset's. Empty when there is none."""


def unbegun(records: Sequence[Record]) -> Unbegun:
    """Those of the newest launch."""
    found: dict[str, Record] = {}
    for record in records:
        if record.event is Event.LAUNCHED:
            found = {}
        elif record.event is Event.FINISHED and record.attempt is None and record.status == Phase.LOST:
            found[record.key] = record
    return found


def standing(store: Store, run: SweepRun, state: StepState, lost: Unbegun) -> Standing:
    """`state` is the run's own; what it lacks is read from its dataset's folder and from the ledger."""
    if state.phase is Phase.ABSENT:
        if store.folder(StepKind.TRAIN, run.key).removed.exists():
            return Standing(REMOVED_WORD, "by axosweep rm; the line that asked for it trains it again", "")
        if (dataset := _failed_dataset(store, run.data_key, lost)) is not None:
            return dataset
        if run.key in lost:
            return Standing(str(Phase.LOST), lost[run.key].message, _log(lost[run.key]))
    message = state.outcome.message if state.outcome and state.phase is not Phase.SUCCEEDED else ""
    attempts = store.folder(StepKind.TRAIN, run.key).attempts()
    return Standing(status_word(state), message, str(attempts[-1].log) if attempts else "")


def status_word(state: StepState) -> str:
    """The word for a state; a failure says its class."""
    if state.phase is Phase.ABSENT:
        return "pending"
    if state.phase is Phase.FAILED and state.outcome and state.outcome.reason:
        return f"failed ({state.outcome.reason})"
    return str(state.phase)


def _failed_dataset(store: Store, data_key: str, lost: Unbegun) -> Standing | None:
    """Why a dataset could not be prepared; None when nothing is wrong with it."""
    state = observe(store, StepKind.PREPROCESS, data_key)
    if state.phase in (Phase.FAILED, Phase.LOST) and state.outcome is not None:
        message = state.outcome.message
        log = str(store.folder(StepKind.PREPROCESS, data_key).attempt(state.attempt).log)
    elif state.phase is Phase.ABSENT and data_key in lost:
        message, log = lost[data_key].message, _log(lost[data_key])
    else:
        return None
    return Standing("blocked", f"its dataset {data_key} could not be prepared: {message}", log)


def _log(record: Record) -> str:
    return str(record.facts.get("log", ""))
