"""What the live view says of a run at a rung: `rung 1: 1.7619, 3rd of 7, goes on`. Pure."""

from __future__ import annotations

from modal_app.halving.standing import Why
from runner.compare.metrics import Curves
from runner.compare.ranking import OBJECTIVE
from runner.console.numbers import loss
from runner.store.run_state import RunStatus
from runner.store.searches import RungReached

GOES_ON = {
    Why.TOP: "goes on",
    Why.MARGIN: "goes on (within noise)",
    Why.RATE: "goes on (largest rate)",
    Why.AUDIT: "goes on (audit)",
    Why.OTHER_ROWS: "goes on (other rows)",
    Why.ASKED: "resumed",
    Why.BEFORE: "goes on (trained further before)",
}


def rung_words(status: RunStatus, reached: RungReached | None) -> str:
    """Empty for a run that has come to no rung, or that has ended otherwise."""
    if reached is None or status not in (RunStatus.RUNNING, RunStatus.PENDING, RunStatus.AT_RUNG):
        return ""
    # The status of a stopped run names the rung.
    at = "" if status is RunStatus.AT_RUNG else f"rung {reached.rung}: "
    place = "diverged" if reached.loss is None else f"{loss(reached.loss)}, {ordinal(reached.place)} of {reached.of}"
    if reached.why is None:
        return f"{at}{place}"
    how = "promoted" if reached.promoted and reached.why is not Why.ASKED else GOES_ON.get(reached.why, "goes on")
    return f"{at}{place}, {how}"


def step_and_loss(status: RunStatus, curves: Curves, reached: RungReached | None) -> tuple[int, float | None]:
    """The last step and held-out loss of a run; of one that has stopped at a rung those there, which no log has."""
    step = curves.step or 0
    if status is RunStatus.AT_RUNG and reached is not None:
        return max(step, reached.step), reached.loss
    return step, curves.final(OBJECTIVE)


def ordinal(number: int) -> str:
    """
    >>> [ordinal(one) for one in (1, 2, 3, 4, 11, 12, 13, 21, 112)]
    ['1st', '2nd', '3rd', '4th', '11th', '12th', '13th', '21st', '112th']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
