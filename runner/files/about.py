"""Describes a part of a run whose name is a hash: how many prompts it answers, or which tasks measured it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from runner.compare.measured import is_of_a_task, of_a_task
from runner.files.answers import drawn
from runner.files.run_files import Files, Part, PartKind, read_object


def about(files: Files, part: Part) -> str:
    """The description, from the step's result.json; empty for an incomplete part or one whose name is enough."""
    if not part.is_complete or part.kind not in (PartKind.ANSWERS, PartKind.EVALUATION):
        return ""
    facts = read_object(files, f"{part.folder}/result.json").get("facts", {})
    return _answered(facts) if part.kind is PartKind.ANSWERS else _measured(facts.get("metrics", ()))


def _answered(facts: Mapping[str, Any]) -> str:
    prompts, options = facts.get("prompts"), facts.get("options", {})
    what = f"answers to {prompts} prompt{'' if prompts == 1 else 's'}"
    sampling = [drawn(options)] if options else []
    return ", ".join([what, *sampling, *(["of the merged model"] if "merged" in options else [])])


def _measured(names: Iterable[str]) -> str:
    """
    >>> _measured(["tasks/quiz/acc", "tasks/quiz/f1", "tasks/arc_easy@limit=100/acc"])
    'tasks quiz, arc_easy (limit=100)'
    """
    of_tasks = [of_a_task(name) for name in names if is_of_a_task(name)]
    tasks = dict.fromkeys(f"{one.task} ({one.settings})" if one.settings else one.task for one in of_tasks)
    return f"task{'' if len(tasks) == 1 else 's'} {', '.join(tasks)}" if tasks else ", ".join(names)
