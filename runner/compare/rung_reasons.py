"""Why a run has stopped at a rung or gone on from there, with its place among all runs that have reached it: `4th of
9`. Pure."""

from __future__ import annotations

from modal_app.halving.snapshot import Why
from runner.compare.ranking import Row
from runner.compare.source import RunFacts
from runner.console.numbers import ordinal
from runner.store.run_state import RunStatus
from runner.store.searches import RungReached

REASONS = {
    Why.TOP: "among the best",
    Why.MARGIN: "within noise",
    Why.RATE: "largest rate",
    Why.AUDIT: "audit",
    Why.OTHER_ROWS: "other rows",
    Why.ASKED: "resumed",
    Why.BEFORE: "trained further before",
}
"""Of those that went on."""


def why_of(row: Row) -> str:
    """The reason at the last rung that the run has reached; empty without one.

    The message of a stopped run has its place when it stopped, which may be better, since others came later.
    """
    return reason_at(row, row.rungs[-1]) if row.rungs else ""


def reason_at(row: Row, reached: RungReached) -> str:
    """`4th of 9` for one that stopped there, `1st of 9, among the best` for one that went on."""
    place = "diverged" if reached.loss is None else f"{ordinal(reached.place)} of {reached.of}"
    reason = reason_of(row, reached)
    return f"{place}, {reason}" if reason else place


def reason_of(run: Row | RunFacts, reached: RungReached) -> str:
    """Why a run went on from a rung; empty if it did not."""
    if reached.why is not None:
        return REASONS.get(reached.why, str(reached.why))
    # A sweep without rungs trains such a run to its end, and the search has no entry about that.
    goes_on = reached.was_stopped and (run.status is RunStatus.SUCCEEDED or reached is not run.rungs[-1])
    return REASONS[Why.ASKED] if goes_on else ""


def was_resumed(row: Row) -> bool:
    """Whether it has finished although its search had stopped it."""
    return row.status is RunStatus.SUCCEEDED and any(
        one.why is Why.ASKED or (one.was_stopped and one.why is None) for one in row.rungs
    )
