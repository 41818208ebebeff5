"""What `axosweep eval` has measured of a run: values by name, in addition to what its training logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.state import read_outcome
from modal_app.store.step import OutcomeStatus, StepKind

TASKS = "tasks/"
"""The prefix of the names of metrics that the lm-evaluation-harness measures."""


@dataclass(frozen=True, slots=True)
class Measurement:
    value: float
    higher_is_better: bool
    judged_by: str
    """Identifies the harness and the user's own task files; values compare only where this is equal. Empty for a loss
    on held-out rows, which the eval fingerprint identifies."""
    stderr: float | None = None
    dataset: Mapping[str, str] = field(default_factory=dict)
    """Of a task: path, config and split of its documents on the hub; empty if they are not known to be on the hub."""


@dataclass(frozen=True, slots=True)
class TaskMetric:
    """The parts of the name of a task's metric."""

    task: str
    settings: str
    """The settings that differ from the task's own: `limit=100,fewshot=5,plain`."""
    metric: str
    filter: str
    """Empty if the answers are not filtered."""


def of_a_task(name: str) -> TaskMetric:
    """Split such a name into its parts.

    >>> of_a_task("tasks/gsm8k@limit=100/exact_match,strict-match")
    TaskMetric(task='gsm8k', settings='limit=100', metric='exact_match', filter='strict-match')
    """
    task_with_settings, _, metric_with_filter = name.removeprefix(TASKS).rpartition("/")
    task, _, settings = task_with_settings.partition("@")
    metric, _, filter_name = metric_with_filter.partition(",")
    return TaskMetric(task, settings, metric, filter_name)


def measured_of(store: Store, run: str) -> dict[str, Measurement]:
    """What was measured, by name: `eval_loss` or `tasks/<task>/<metric>`. If something was measured more than once, the
    newest counts."""
    folder = store.folder(StepKind.TRAIN, run).path / StepKind.EVALUATE
    results = [read_outcome(path) for path in folder.glob("*/result.json")]
    ended = [one for one in results if one is not None and one.status is OutcomeStatus.SUCCEEDED]
    found: dict[str, Measurement] = {}
    for one in sorted(ended, key=lambda one: one.finished_at):
        found |= _of_one(one.facts)
    return found


def is_of_a_task(name: str) -> bool:
    return name.startswith(TASKS)


def _of_one(facts: Mapping[str, Any]) -> dict[str, Measurement]:
    higher, errors, datasets = (facts.get(name, {}) for name in ("higher_is_better", "stderr", "datasets"))
    judged_by = str(facts.get("judged_by", ""))
    return {
        name: Measurement(
            value,
            bool(higher.get(name)),
            judged_by,
            errors.get(name),
            datasets.get(of_a_task(name).task, {}) if is_of_a_task(name) else {},
        )
        for name, value in facts.get("metrics", {}).items()
    }
