"""The scores on tasks of the lm-evaluation-harness for a model card: `model-index`, and a table. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.compare.measured import Measurement, is_of_a_task, of_a_task
from runner.console.numbers import loss

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

TASK_TYPE = "text-generation"
"""The hub's name for the kind of all these tasks."""


@dataclass(frozen=True, slots=True)
class Score:
    task: str
    settings: str
    """Options that differ from the task's own: `limit=100,fewshot=5,plain`."""
    metric: str
    filter: str
    value: float
    stderr: float | None
    dataset: Mapping[str, str]
    """path, config and split on the hub; empty if they are not known."""

    def value_text(self) -> str:
        return loss(self.value) + ("" if self.stderr is None else f" ± {loss(self.stderr)}")

    @property
    def name(self) -> str:
        return f"{self.metric} ({self.filter})" if self.filter else self.metric


def scores_of(measured: Mapping[str, Measurement]) -> tuple[Score, ...]:
    """The measurements of a run that come from tasks, by name."""
    found = []
    for name, one in sorted(measured.items()):
        if is_of_a_task(name):
            part = of_a_task(name)
            found.append(Score(part.task, part.settings, part.metric, part.filter, one.value, one.stderr, one.dataset))
    return tuple(found)


def model_index(model: str, scores: tuple[Score, ...]) -> list[dict[str, Any]] | None:
    """An entry for each task, as in the hub's specification of model cards; None without scores.

    Tasks are passed one by one, since the library makes one entry of all scores on one dataset.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    tasks: dict[tuple[str, str], list[EvalResult]] = {}
    for one in scores:
        tasks.setdefault((one.task, one.settings), []).append(_result(one))
    entries = [entry for group in tasks.values() for entry in eval_results_to_model_index(model, group)[0]["results"]]
    return [{"name": model, "results": entries}] if entries else None


def table(scores: tuple[Score, ...]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "On tasks of the [lm-evaluation-harness](https://github.com/EleutherAI/lm-evaluation-harness):"
    yield ""
    yield "| task | metric | value |"
    yield "|---|---|---|"
    for one in scores:
        task = f"{one.task} ({one.settings.replace(',', ', ')})" if one.settings else one.task
        yield f"| {task} | {one.name} | {one.value_text()} |"


def _result(one: Score) -> EvalResult:
    """The hub requires the id of a dataset; a task whose dataset is unknown is named instead. A value with a standard
    error is a text, as in the specification.
    """
    from huggingface_hub import EvalResult

    return EvalResult(
        task_type=TASK_TYPE,
        dataset_type=one.dataset.get("path", one.task),
        dataset_name=one.task,
        dataset_config=one.dataset.get("config"),
        dataset_split=one.dataset.get("split"),
        dataset_args=dict(map(_argument, one.settings.split(","))) if one.settings else None,
        metric_type=one.metric,
        metric_value=one.value if one.stderr is None else one.value_text(),
        metric_name=one.name if one.filter else None,
    )


def _argument(word: str) -> tuple[str, Any]:
    """
    >>> _argument("fewshot=5"), _argument("plain")
    (('num_few_shot', 5), ('chat_template', False))
    """
    name, equals, value = word.partition("=")
    if not equals:
        return "chat_template", False
    return {"fewshot": "num_few_shot"}.get(name, name), int(value)
