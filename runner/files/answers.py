"""The answers that runs and their base models have given, as they lie in a store: columns beside each other, one set
for everything that was asked in the same way. Only reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_app.store.layout import BASE_MODEL_KEY, Store, after_key, parts_of_key
from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind

TOLD_APART_BY = ("prompts", "greedy", "max_tokens", "temperature", "seed")
"""Of a step's options: answers to these stand beside each other."""


@dataclass(frozen=True, slots=True)
class Column:
    """What one model has answered."""

    run: str
    """Its key; `base` for a base model alone."""
    name: str
    """What tells the run from the others of its sweep."""
    merged: bool
    rows: Sequence[Mapping[str, Any]]
    """One a prompt: messages, output, cut; answer and exact where one answer is right."""
    made_at: float
    """Unix seconds."""
    options: Mapping[str, Any]

    @property
    def exact(self) -> int:
        """How many answers are exactly right."""
        return sum(bool(row.get("exact")) for row in self.rows)

    @property
    def judged(self) -> int:
        """How many could be."""
        return sum("exact" in row for row in self.rows)

    @property
    def cut(self) -> int:
        """How many ended at the most tokens that were allowed."""
        return sum(bool(row["cut"]) for row in self.rows)

    @property
    def heading(self) -> str:
        return f"{self.run} (merged)" if self.merged else self.run


@dataclass(frozen=True, slots=True)
class AnswerSet:
    """The same prompts, answered in the same way by several."""

    options: Mapping[str, Any]
    columns: Sequence[Column]
    """Base models first, then the runs."""

    @property
    def prompts(self) -> Sequence[Mapping[str, Any]]:
        """The rows of the first column: for their messages, and the right answers."""
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
    """How a token was chosen, in words."""
    return "greedy" if options.get("greedy") else f"temperature {options.get('temperature'):g}"


def question(row: Mapping[str, Any]) -> str:
    """What the user says last."""
    return str(row["messages"][-1]["content"])


def column_of(store: Store, key: str, name: str) -> Column | None:
    """What the infer step of that key has answered; None before it has."""
    folder = store.folder(StepKind.INFER, key)
    done = read_json(folder.done)
    if not done or not folder.answers.exists():
        return None
    options = done["facts"].get("options", {})
    rows = [json.loads(line) for line in folder.answers.read_text(encoding="utf-8").split("\n") if line]
    return Column(parts_of_key(key)[0], name, bool(options.get("merged")), rows, done["finished_at"], options)


def answer_sets(store: Store, names: Mapping[str, str]) -> list[AnswerSet]:
    """All answers of runs (key -> name, in the order of their columns), with those of their base models; the largest
    set first, the newest of equally large ones. Of what was asked again of one model, with another trainer, the newest.
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
    return AnswerSet({name: columns[0].options.get(name) for name in TOLD_APART_BY}, columns)


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
    return json.dumps([options.get(name) for name in TOLD_APART_BY])
