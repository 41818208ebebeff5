"""The answers of runs and their base models in a store: a column per model, and a set of columns for each combination
of prompts and sampling options. Only reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.store.layout import BASE_MODEL_KEY, Store, after_key, parts_of_key
from modal_app.store.read_json import name_unreadable
from modal_app.store.state import read_outcome
from modal_app.store.step import StepKind

SET_OPTIONS = ("prompts", "greedy", "max_tokens", "temperature", "seed")
"""Options of an infer step: answers with equal ones belong to one set."""


@dataclass(frozen=True, slots=True)
class Column:
    """The answers of one model."""

    run: str
    """Its key; `base` for a base model alone."""
    name: str
    """What distinguishes the run from the others of its sweep."""
    merged: bool
    rows: Sequence[Mapping[str, Any]]
    """One per prompt: messages, output, cut; also answer and exact where the prompt has a right answer."""
    made_at: float
    """Unix seconds."""
    options: Mapping[str, Any]

    @property
    def exact(self) -> int:
        """How many answers are exactly right."""
        return sum(bool(row.get("exact")) for row in self.rows)

    @property
    def judged(self) -> int:
        """How many answers have a right answer to be compared with."""
        return sum("exact" in row for row in self.rows)

    @property
    def cut(self) -> int:
        """How many answers ended at the token limit."""
        return sum(bool(row["cut"]) for row in self.rows)

    @property
    def heading(self) -> str:
        return f"{self.run} (merged)" if self.merged else self.run


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """Answers of several models to the same prompts, with the same options."""

    options: Mapping[str, Any]
    columns: Sequence[Column]
    """Base models first, then the runs."""

    @property
    def prompts(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the first column, for their messages and right answers."""
        return self.columns[0].rows

    @property
    def judged(self) -> bool:
        return any(column.judged for column in self.columns)

    @property
    def made_at(self) -> float:
        return max(column.made_at for column in self.columns)

    def how(self) -> str:
        """In words: `greedy, at most 256 tokens`."""
        return f"{drawn(self.options)}, at most {self.options.get('max_tokens')} tokens"


def drawn(options: Mapping[str, Any]) -> str:
    """How tokens were sampled, in words."""
    temperature = options.get("temperature")
    if options.get("greedy"):
        return "greedy"
    return f"temperature {temperature:g}" if isinstance(temperature, int | float) else "an unknown temperature"


def question(row: Mapping[str, Any]) -> str:
    """The last message of a row's prompt."""
    return str(row["messages"][-1]["content"])


def column_of(store: Store, key: str, name: str) -> Column | None:
    """The answers of the infer step of that key; None if it is not done."""
    folder = store.folder(StepKind.INFER, key)
    done = read_outcome(folder.done)
    rows = _rows(folder.answers) if done is not None and folder.answers.exists() else None
    if done is None or rows is None:
        return None
    options = done.facts.get("options", {})
    return Column(parts_of_key(key)[0], name, bool(options.get("merged")), rows, done.finished_at, options)


def _rows(answers: Path) -> list[dict[str, Any]] | None:
    """None for answers that cannot be read."""
    try:
        rows = [json.loads(line) for line in answers.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, ValueError, RecursionError) as error:
        name_unreadable(answers, str(error))
        return None
    if all(isinstance(row, dict) and row.keys() >= {"messages", "output", "cut"} for row in rows):
        return rows
    name_unreadable(answers, "a line is not an answer")
    return None


def answer_sets(store: Store, names: Mapping[str, str]) -> list[AnswerSet]:
    """All answers of runs (`names`: key -> name, in the order of their columns), with those of their base models.

    The largest set comes first; of equally large ones, the newest. If one model has answered a set twice, with
    different trainers, the newest answers count.
    """
    sets: dict[str, list[Column]] = {}
    for column in _newest(_columns(store, names)):
        sets.setdefault(_way(column.options), []).append(column)
    of_bases = _newest(_columns(store, {BASE_MODEL_KEY: "the base model"}))
    found = []
    for way, columns in sets.items():
        wanted = {column.options.get("base") for column in columns}
        bases = [one for one in of_bases if _way(one.options) == way and one.options.get("base") in wanted]
        found.append(answer_set([*bases, *columns]))
    return sorted(found, key=lambda one: (len(one.columns) * len(one.prompts), one.made_at), reverse=True)


def answer_set(columns: Sequence[Column]) -> AnswerSet:
    return AnswerSet({name: columns[0].options.get(name) for name in SET_OPTIONS}, columns)


def _columns(store: Store, names: Mapping[str, str]) -> Iterator[Column]:
    for run, name in names.items():
        for own in _own_hashes(store, run):
            column = column_of(store, after_key(run, own), name)
            if column is not None:
                yield column


def _newest(columns: Iterable[Column]) -> list[Column]:
    found: dict[tuple[object, ...], Column] = {}
    for one in columns:
        base = one.options.get("base") if one.run == BASE_MODEL_KEY else None
        model = (_way(one.options), one.run, one.merged, base)
        if model not in found or found[model].made_at < one.made_at:
            found[model] = one
    return list(found.values())


def _own_hashes(store: Store, run: str) -> Iterable[str]:
    return sorted(path.name for path in (store.runs / run / StepKind.INFER).glob("*") if path.is_dir())


def _way(options: Mapping[str, Any]) -> str:
    return json.dumps([options.get(name) for name in SET_OPTIONS])
