"""What `axosweep eval` has found out about a run: values by name, beside what its training logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import OutcomeStatus, StepKind

TASKS = "tasks/"
"""How the names of metrics begin that are those of the lm-evaluation-harness."""


@dataclass(frozen=True, slots=True)
class Measurement:
    value: float
    higher_is_better: bool
    judged_by: str
    """Names the harness and the user's own task files: values of two are values of different questions. Empty for a
    loss on held-out rows, which the eval fingerprint names."""
    stderr: float | None = None
    dataset: Mapping[str, str] = field(default_factory=dict)
    """Of a task: path, config and split of its documents on the hub; empty where they are not known to be there."""


@dataclass(frozen=True, slots=True)
class TaskMetric:
    """What the name of a metric of a task says."""

    task: str
    asked: str
    """What was asked otherwise than the task says: `limit=100,fewshot=5,plain`."""
    metric: str
    filter: str
    """Empty for answers that are taken as they are."""


def of_a_task(name: str) -> TaskMetric:
    """The parts of such a name.

    >>> of_a_task("tasks/gsm8k@limit=100/exact_match,strict-match")
    TaskMetric(task='gsm8k', asked='limit=100', metric='exact_match', filter='strict-match')
    """
    asked_task, _, judged = name.removeprefix(TASKS).rpartition("/")
    task, _, asked = asked_task.partition("@")
    metric, _, taken = judged.partition(",")
    return TaskMetric(task, asked, metric, taken)


def measured_of(store: Store, run: str) -> dict[str, Measurement]:
    """By name, `eval_loss` or `tasks/<task>/<metric>`; of what was measured more than once, the newest."""
    folder = store.folder(StepKind.TRAIN, run).path / StepKind.EVALUATE
    results = [read_json(path) for path in folder.glob("*/result.json")]
    ended = [one for one in results if one.get("status") == OutcomeStatus.SUCCEEDED]
    found: dict[str, Measurement] = {}
    for one in sorted(ended, key=lambda one: float(one["finished_at"])):
        found |= _of_one(one["facts"])
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
