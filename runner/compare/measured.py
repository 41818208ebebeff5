"""What `axosweep eval` has found out about a run: values by name, beside what its training logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from modal_app.layout import Store
from modal_app.step import OutcomeStatus, StepKind
from runner.store import read_json

TASKS = "tasks/"
"""How the names of metrics begin that are those of the lm-evaluation-harness."""


@dataclass(frozen=True, slots=True)
class Measured:
    value: float
    higher_is_better: bool
    judged_by: str
    """Names the harness and the user's own task files: values of two are values of different questions. Empty for a
    loss on held-out rows, which the eval fingerprint names."""


def measured_of(store: Store, run: str) -> dict[str, Measured]:
    """By name, `eval_loss` or `tasks/<task>/<metric>`; of what was measured more than once, the newest."""
    folder = store.folder(StepKind.TRAIN, run).path / StepKind.EVALUATE
    results = [read_json(path) for path in folder.glob("*/result.json")]
    ended = [one for one in results if one.get("status") == OutcomeStatus.SUCCEEDED]
    found: dict[str, Measured] = {}
    for one in sorted(ended, key=lambda one: float(one["finished_at"])):
        found |= _of_one(one["facts"])
    return found


def is_of_a_task(name: str) -> bool:
    return name.startswith(TASKS)


def _of_one(facts: Mapping[str, Any]) -> dict[str, Measured]:
    higher = facts.get("higher_is_better", {})
    return {
        name: Measured(value, bool(higher.get(name)), str(facts.get("judged_by", "")))
        for name, value in facts.get("metrics", {}).items()
    }
