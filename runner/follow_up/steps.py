"""The steps after a run that a launch plans as well as the verbs: what is asked of a run, as a step with a key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.follow_up.subjects import Subject, after_step
from runner.types import PlannedStep


def merge_step(subject: Subject, adapter: str | None = None) -> PlannedStep:
    """The merge of a run's own adapter, or of another one, kept in the store as `inputs/...`.

    Raises SweepError for a run that has no adapter.
    """
    if subject.adapter is None and adapter is None:
        raise SweepError(
            f"There is nothing to merge in {subject.key}: it is a full fine-tune (adapter is not set), so what it "
            f"leaves is the whole model: `axosweep ls {subject.key}`."
        )
    return after_step(subject, StepKind.MERGE, {} if adapter is None else {"adapter": adapter})


def evaluate_step(subject: Subject, options: Mapping[str, Any]) -> PlannedStep:
    """The evaluation of a run, with the `options` of modal_app.steps.evaluate; without, on its held-out rows."""
    return after_step(subject, StepKind.EVALUATE, options)


def merged_model(subject: Subject) -> Path | None:
    """The folder of the run's own merged model, where it has been made."""
    folder = subject.store.folder(StepKind.MERGE, merge_step(subject).step.key)
    return folder.model if folder.done.exists() else None
