"""What tasks of the lm-evaluation-harness have measured, for a model card: `model-index`, and a table. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from runner.compare.measured import Measured, is_of_a_task, of_a_task

TASK_TYPE = "text-generation"
"""The hub's name for what all of these tasks ask of a model."""


@dataclass(frozen=True, slots=True)
class Score:
    task: str
    asked: str
    """What was asked otherwise than the task says: `limit=100,fewshot=5,plain`."""
    metric: str
    filter: str
    value: float
    stderr: float | None
    dataset: Mapping[str, str]
    """path, config and split on the hub; empty where they are not known."""

    def told(self) -> str:
        return f"{self.value:.4f}" + ("" if self.stderr is None else f" ± {self.stderr:.4f}")

    @property
    def name(self) -> str:
        return f"{self.metric} ({self.filter})" if self.filter else self.metric


def scores_of(measured: Mapping[str, Measured]) -> tuple[Score, ...]:
    """Of all that was measured of a run, what tasks have, by name."""
    found = []
    for name, one in sorted(measured.items()):
        if is_of_a_task(name):
            said = of_a_task(name)
            found.append(Score(said.task, said.asked, said.metric, said.filter, one.value, one.stderr, one.dataset))
    return tuple(found)


def model_index(model: str, scores: tuple[Score, ...]) -> list[dict[str, Any]] | None:
    """An entry for each task, as the hub's specification of model cards has it; None where there is nothing."""
    tasks: dict[tuple[str, str], list[Score]] = {}
    for one in scores:
        tasks.setdefault((one.task, one.asked), []).append(one)
    results = [
        {
            "task": {"type": TASK_TYPE},
            "dataset": _dataset(group[0]),
            "metrics": [_metric(one) for one in group],
        }
        for group in tasks.values()
    ]
    return [{"name": model, "results": results}] if results else None


def table(scores: tuple[Score, ...]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "On tasks of the [lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness):"
    yield ""
    yield "| task | metric | value |"
    yield "|---|---|---|"
    for one in scores:
        task = f"{one.task} ({one.asked.replace(',', ', ')})" if one.asked else one.task
        yield f"| {task} | {one.name} | {one.told()} |"


def _dataset(one: Score) -> dict[str, Any]:
    """The hub wants a dataset's id; a task whose documents are not known to be there stands for itself."""
    known: dict[str, Any] = {"name": one.task, "type": one.dataset.get("path", one.task)}
    known |= {key: one.dataset[key] for key in ("config", "split") if key in one.dataset}
    return known | ({"args": dict(map(_argument, one.asked.split(",")))} if one.asked else {})


def _argument(word: str) -> tuple[str, Any]:
    """
    >>> _argument("fewshot=5"), _argument("plain")
    (('num_few_shot', 5), ('chat_template', False))
    """
    name, equals, value = word.partition("=")
    if not equals:
        return "chat_template", False
    return {"fewshot": "num_few_shot"}.get(name, name), int(value)


def _metric(one: Score) -> dict[str, Any]:
    """With its standard error the value is a text: that is how the specification writes one."""
    value = one.value if one.stderr is None else one.told()
    return {"type": one.metric, "value": value, **({"name": one.name} if one.filter else {})}
