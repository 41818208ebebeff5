"""What the end of a run's job says to the others of its search. Whoever sees a job end notes it, and noting it again
changes nothing. A job that is lost, preempted or stopped on request says nothing, as its run may be continued."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.halving.entries import Entries, go_of, loss_of
from modal_app.halving.halve import note_divergence, note_out, note_stop
from modal_app.halving.standing import Reading, Why
from modal_app.store.rungs import Rungs
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Step

MAY_BE_CONTINUED = (FailureReason.PREEMPTED, FailureReason.TIMEOUT, FailureReason.KILLED, FailureReason.LOST)


def note_end(entries: Entries, step: Step, outcome: Outcome, metrics: Path) -> None:
    """`metrics`: metrics.jsonl of the run."""
    assert step.rungs is not None
    match outcome.status:
        case OutcomeStatus.AT_RUNG if outcome.facts.get("search") == step.rungs.search:
            note_stop(entries, step.key, int(outcome.facts["rung"]))
        case OutcomeStatus.SUCCEEDED:
            facts = outcome.facts
            note_trained(
                entries, step, int(facts["max_steps"]), int(facts["step"]), facts.get("eval_fingerprint"), metrics
            )
        case OutcomeStatus.FAILED if outcome.reason is FailureReason.NAN:
            _note_nan(entries, step, outcome)
        case OutcomeStatus.FAILED if outcome.reason not in MAY_BE_CONTINUED:
            note_out(entries, step.key)


def note_trained(
    entries: Entries, step: Step, max_steps: int, trained: int, eval_fingerprint: str | None, metrics: Path
) -> None:
    """Of a run that was trained so many steps, and perhaps not asked at each rung before that. If it has recorded a
    held-out loss at all of these, it is compared by them, and has gone on; otherwise it is left out."""
    assert step.rungs is not None
    steps = enumerate(step.rungs.steps(max_steps), start=1)
    unasked = {rung: at for rung, at in steps if 0 < at < trained and not entries.get(loss_of(rung, step.key))}
    losses = recorded_losses(metrics) if unasked else {}
    if any(at not in losses for at in unasked.values()):
        note_out(entries, step.key)
        return
    for rung, at in unasked.items():
        reading = Reading(losses[at], max_steps, eval_fingerprint, setting=setting_of(step.config))
        entries.put(loss_of(rung, step.key), reading.to_json())
        entries.put(go_of(rung, step.key), {"why": Why.BEFORE})


def recorded_losses(metrics: Path) -> dict[int, float | None]:
    """The held-out loss at each step that was evaluated; None if it was not finite."""
    found: dict[int, float | None] = {}
    if metrics.exists():
        for text in metrics.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue  # cut by a kill
            if "eval_loss" in line:
                loss = line["eval_loss"]
                found[int(line["step"])] = loss if loss is not None and math.isfinite(loss) else None
    return found


def next_rung(entries: Entries, run: str, rungs: Rungs) -> int:
    """The first rung at which a run has not been; 0 if it has been at all."""
    every = range(1, len(rungs.fractions) + 1)
    return next((rung for rung in every if not entries.get(loss_of(rung, run))), 0)


def setting_of(config: Mapping[str, Any]) -> str:
    """Equal for configs that differ in their seed alone."""
    rest = {name: value for name, value in config.items() if name != "seed"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:12]


def _note_nan(entries: Entries, step: Step, outcome: Outcome) -> None:
    assert step.rungs is not None
    if rung := next_rung(entries, step.key, step.rungs):
        facts = outcome.facts
        reading = Reading(None, int(facts.get("max_steps", 0)), facts.get("eval_fingerprint"))
        note_divergence(entries, step.key, rung, reading)
