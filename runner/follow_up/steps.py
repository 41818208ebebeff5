"""Follow-up steps that both a launch and the verbs plan, each as a step with a key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.store.state import is_done
from modal_app.store.step import StepKind
from modal_app.store.trained_weights import TrainedWeights
from runner.errors import SweepError
from runner.follow_up.subjects import Subject, after_step
from runner.types import PlannedStep

MERGED_ALREADY = "ReLoRA has merged its adapters during training"


def merge_step(subject: Subject, adapter: str | None = None) -> PlannedStep:
    """The merge of a run's own adapter, or of another one, stored as `inputs/...`.

    Raises SweepError for a run without an adapter.
    """
    if subject.leaves is TrainedWeights.MODEL and adapter is None:
        why = "it is a full fine-tune (adapter is not set)" if subject.adapter is None else MERGED_ALREADY
        raise SweepError(
            f"There is nothing to merge in {subject.key}: {why}, so its result is the complete model: "
            f"`axosweep ls {subject.key}`."
        )
    return after_step(subject, StepKind.MERGE, {} if adapter is None else {"adapter": adapter})


def evaluate_step(subject: Subject, options: Mapping[str, Any]) -> PlannedStep:
    """The evaluation of a run, with the `options` of modal_app.steps.evaluate; without options, on held-out rows."""
    return after_step(subject, StepKind.EVALUATE, options)


def merged_model(subject: Subject) -> Path | None:
    """The folder of the run's own merged model, if it exists."""
    folder = subject.store.folder(StepKind.MERGE, merge_step(subject).step.key)
    return folder.model if is_done(folder) else None
