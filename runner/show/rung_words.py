"""What the live view says of a run at a rung: `rung 1: 3rd of 7, goes on`. Pure."""

from __future__ import annotations

from modal_app.halving.standing import Why
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
    place = "diverged" if reached.loss is None else f"{ordinal(reached.place)} of {reached.of}"
    if status is RunStatus.AT_RUNG and reached.why is None:
        return place  # its status names the rung
    if reached.why is None:
        return f"rung {reached.rung}: {place}"
    how = "promoted" if reached.promoted and reached.why is not Why.ASKED else GOES_ON.get(reached.why, "goes on")
    return f"rung {reached.rung}: {place}, {how}"


def ordinal(number: int) -> str:
    """
    >>> [ordinal(one) for one in (1, 2, 3, 4, 11, 12, 13, 21, 112)]
    ['1st', '2nd', '3rd', '4th', '11th', '12th', '13th', '21st', '112th']
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
