"""The entries that the end of a run's job leaves for the other runs of its search. Any process that sees a job end
records it, and recording it again changes nothing. A job that is lost, preempted or stopped on request leaves no entry,
as its run may be continued."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modal_app.halving.earlier import Known
from modal_app.halving.entries import Entries, go_of, loss_of, out_of
from modal_app.halving.halve import note_divergence, note_out, note_stop
from modal_app.halving.snapshot import Reading, Why
from modal_app.store.layout import StepFolder
from modal_app.store.lines import read_lines
from modal_app.store.read_json import read_json
from modal_app.store.rungs import Rungs
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Step

DIVERGED = "diverged"
"""The reason of a run that has stopped without a comparison."""
NOTHING: Known = {}
MAY_BE_CONTINUED = (FailureReason.PREEMPTED, FailureReason.TIMEOUT, FailureReason.KILLED, FailureReason.LOST)


def note_end(entries: Entries, step: Step, outcome: Outcome, folder: StepFolder, known: Known = NOTHING) -> None:
    """`folder`: of the run. `known`: what it has reached at the rungs of any search."""
    assert step.rungs is not None
    match outcome.status:
        case OutcomeStatus.AT_RUNG if outcome.facts.get("search") == step.rungs.search:
            note_stop(entries, step.key, int(outcome.facts["rung"]))
        case OutcomeStatus.AT_RUNG:
            _note_stop_elsewhere(entries, step, outcome, known)
        case OutcomeStatus.SUCCEEDED:
            _note_success(entries, step, outcome, folder, known)
        case OutcomeStatus.FAILED if outcome.reason is FailureReason.NAN:
            _note_nan(entries, step, outcome)
        case OutcomeStatus.FAILED if outcome.reason not in MAY_BE_CONTINUED:
            note_out(entries, step.key)


def rung_of_stop(rungs: Rungs, outcome: Outcome | None, known: Known) -> int:
    """The rung of a search at which a run has stopped; 0 if it has not. If another search has stopped it, it is the
    rung at the same step, and what the run reached there must be known: otherwise, the run has to record that first."""
    if outcome is None or outcome.status is not OutcomeStatus.AT_RUNG:
        return 0
    facts = outcome.facts
    if facts.get("search") == rungs.search:
        return int(facts["rung"])
    at, max_steps = int(facts.get("step") or 0), int(facts.get("max_steps") or 0)
    if facts.get("why") == DIVERGED:
        later = enumerate(rungs.steps(max_steps), start=1)
        return next((rung for rung, step in later if step >= at), 0) if known else 0
    return rungs.at(at, max_steps) if at in known else 0


def note_trained(
    entries: Entries,
    step: Step,
    max_steps: int,
    trained: int,
    eval_fingerprint: str | None,
    folder: StepFolder,
    known: Known = NOTHING,
) -> None:
    """Record a run that was trained so many steps, and perhaps was not compared at each rung before that."""
    assert step.rungs is not None
    rungs = enumerate(step.rungs.steps(max_steps), start=1)
    passed = {rung: at for rung, at in rungs if 0 < at < trained}
    _note_recorded(entries, step, passed, Reading(None, max_steps, eval_fingerprint), folder, known)


def _note_stop_elsewhere(entries: Entries, step: Step, outcome: Outcome, known: Known) -> None:
    """A run that another search has stopped is compared by what it reached there, and starts only if it goes on."""
    assert step.rungs is not None
    rung = rung_of_stop(step.rungs, outcome, known)
    if not rung:
        return
    reading = known.get(int(outcome.facts["step"]))
    if outcome.facts.get("why") == DIVERGED:
        reading = next((one for one in known.values() if one.loss is None), None)
    if reading is None:
        return
    entries.put(loss_of(rung, step.key), reading.to_json())
    note_stop(entries, step.key, rung)


def _note_success(entries: Entries, step: Step, outcome: Outcome, folder: StepFolder, known: Known) -> None:
    """Record a success. A run that has stopped early has its last loss at the rungs after that."""
    assert step.rungs is not None
    facts = outcome.facts
    max_steps, trained = int(facts.get("max_steps") or 0), int(facts.get("step") or 0)
    rungs = enumerate(step.rungs.steps(max_steps), start=1)
    passed = {rung: min(at, trained) for rung, at in rungs if at}
    _note_recorded(entries, step, passed, Reading(None, max_steps, facts.get("eval_fingerprint")), folder, known)


def _note_recorded(
    entries: Entries, step: Step, passed: Mapping[int, int], reading: Reading, folder: StepFolder, known: Known
) -> None:
    """If a run has passed rungs without being compared, and its held-out loss at all of them is known, it is compared
    by these losses, and has gone on; otherwise it is left out there. `passed`: the rungs, and the steps to take the
    losses of."""
    missing = {rung: at for rung, at in passed.items() if not entries.get(loss_of(rung, step.key))}
    if not missing:
        return
    setting = setting_of(step.config)
    recorded = {at: replace(reading, loss=loss, setting=setting) for at, loss in _known_losses(folder).items()}
    found = {**recorded, **known}  # the latter have the losses of documents, too
    if not set(missing.values()) <= found.keys():
        entries.put(out_of(min(missing) - 1, step.key), {"at": round(time.time(), 3)})  # it may be at later ones
        return
    for rung, at in missing.items():
        entries.put(loss_of(rung, step.key), found[at].to_json())
        entries.put(go_of(rung, step.key), {"why": Why.BEFORE})


def _known_losses(folder: StepFolder) -> dict[int, float | None]:
    """The held-out losses by step, including those for another search, which metrics.jsonl does not have."""
    answers = [one for attempt in folder.attempts() for one in read_json(attempt.train_state).get("rungs") or ()]
    return {int(one["step"]): one["loss"] for one in answers} | recorded_losses(folder.metrics)


def recorded_losses(metrics: Path) -> dict[int, float | None]:
    """The held-out loss at each step that was evaluated; None if it was not finite."""
    losses = {int(line["step"]): line["eval_loss"] for line in read_lines(metrics) if "eval_loss" in line}
    return {step: loss if loss is not None and math.isfinite(loss) else None for step, loss in losses.items()}


def setting_of(config: Mapping[str, Any]) -> str:
    """Equal for configs that differ in their seed alone."""
    rest = {name: value for name, value in config.items() if name != "seed"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:12]


def _note_nan(entries: Entries, step: Step, outcome: Outcome) -> None:
    """Record a NaN at the first rung that the run has not reached, unless it has diverged before."""
    assert step.rungs is not None
    facts = outcome.facts
    for rung in range(1, len(step.rungs.fractions) + 1):
        found = entries.get(loss_of(rung, step.key))
        if found is None:
            reading = Reading(None, int(facts.get("max_steps") or 0), facts.get("eval_fingerprint"))
            note_divergence(entries, step.key, rung, reading)
        if found is None or found["loss"] is None:
            return
