"""on_oom=halve: a run whose GPU's memory was too small is tried again with a smaller micro batch.

How much smaller follows from the attempts in the run's folder, so it does not matter who starts the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modal_app.store import checkpoints
from modal_app.store.facts import TrainFacts
from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.out_of_memory import Memory
from modal_app.store.read_json import read_json
from modal_app.store.smaller_batch import BATCH, MOST_TIMES, changes_after, keeps_order, smaller_batches
from modal_app.store.state import read_outcome
from modal_app.store.step import Device, FailureReason, Outcome, OutcomeStatus, Step, StepKind


def with_smaller_batch(requested: Step, folder: StepFolder) -> Step:
    """The step as its next attempt does it. Removes the checkpoints that this attempt cannot go on from. The caller
    has the step's lock."""
    if requested.kind is not StepKind.TRAIN:
        return requested
    attempts = [one for one in folder.attempts() if one.number != folder.drafted_by]
    changes = changes_after(requested.config, _times(requested, attempts)) if requested.heals else {}
    step = replace(requested, config={**requested.config, **changes}) if changes else requested
    before = _last_config(attempts)
    if before is not None and before.get(BATCH) != step.config.get(BATCH) and not keeps_order(step.config):
        for attempt in attempts:  # on Modal, the next one goes on from the draft that has come furthest
            checkpoints.remove_all(folder.draft_of(attempt.number).model)
        checkpoints.remove_all(folder.model)
    return step


def _last_config(attempts: Sequence[Attempt]) -> Mapping[str, Any] | None:
    """The config of the newest attempt that has one: a process may have been killed before it wrote its own, and then
    it has saved no checkpoint either."""
    read = (read_json(one.step, lenient=True).get("config") for one in reversed(attempts))
    return next((config for config in read if config), None)


def judged(outcome: Outcome, requested: Step, step: Step, folder: StepFolder) -> Outcome:
    """The outcome of an attempt, with what it had changed; a stop if it is followed by one with a smaller micro batch.
    `step`: as this attempt has done it."""
    changed = {key: value for key, value in step.config.items() if requested.config.get(key) != value}
    if changed:
        outcome = replace(outcome, facts={**outcome.facts, "smaller_batch": changed})
    smaller = next(smaller_batches(step.config), None)
    if not requested.heals or smaller is None or not _was_too_small(outcome, requested.device):
        return outcome
    if outcome.status is not OutcomeStatus.FAILED or _times(requested, folder.attempts()) >= MOST_TIMES:
        return outcome
    message = f"{outcome.message}; it is tried again with micro_batch_size={smaller['micro_batch_size']}"
    return replace(outcome, status=OutcomeStatus.STOPPED, message=message)


def _times(requested: Step, attempts: Iterable[Attempt]) -> int:
    """How many attempts were out of memory, as far as that counts."""
    ended = (read_outcome(attempt.result) for attempt in attempts if attempt.result.exists())
    return min(sum(_was_too_small(one, requested.device) for one in ended if one), MOST_TIMES)


def _was_too_small(outcome: Outcome, device: Device) -> bool:
    """Whether the memory that a run trains in was too small. A kill by the kernel does not count."""
    exceeded = TrainFacts.of(outcome.facts).out_of_memory_on
    known = exceeded is Memory.GPU or (exceeded is Memory.MACHINE and device is Device.CPU)
    return known and outcome.reason is FailureReason.OOM
