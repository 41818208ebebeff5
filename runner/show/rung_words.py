"""What the live view says of a run at a rung: `rung 1: 1.7619, 3rd of 7, goes on`. Pure."""

from __future__ import annotations

from modal_app.halving.snapshot import Why
from runner.compare.metrics import Curves
from runner.compare.ranking import OBJECTIVE
from runner.compare.rung_reasons import REASONS
from runner.console.numbers import loss, ordinal
from runner.store.run_state import RunStatus
from runner.store.searches import RungReached


def rung_words(status: RunStatus, reached: RungReached | None) -> str:
    """Empty for a run that has come to no rung, or that has ended otherwise."""
    if reached is None or status not in (RunStatus.RUNNING, RunStatus.PENDING, RunStatus.AT_RUNG):
        return ""
    # The status of a stopped run names the rung.
    at = "" if status is RunStatus.AT_RUNG else f"rung {reached.rung}: "
    place = "diverged" if reached.loss is None else f"{loss(reached.loss)}, {ordinal(reached.place)} of {reached.of}"
    if reached.why is None:
        return f"{at}{place}"
    return f"{at}{place}, {_how(reached.why, promoted=reached.promoted)}"


def _how(why: Why, *, promoted: bool) -> str:
    if why is Why.ASKED:
        return REASONS[why]
    if promoted:
        return "promoted"
    return "continues" if why in (Why.TOP, Why.UNANSWERED) else f"continues ({REASONS[why]})"


def step_and_loss(status: RunStatus, curves: Curves, reached: RungReached | None) -> tuple[int, float | None]:
    """The last step and held-out loss of a run; of one that has stopped at a rung those there, which no log has."""
    step = curves.step or 0
    if status is RunStatus.AT_RUNG and reached is not None:
        return max(step, reached.step), reached.loss
    return step, curves.final(OBJECTIVE)
