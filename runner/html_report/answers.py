"""The answers of a sweep's runs -> the values that the page shows side by side. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from modal_app.store.layout import BASE_MODEL_KEY
from runner.console.redact import redact
from runner.files.answers import AnswerSet, Column, question

MOST_SETS = 5
MOST_PROMPTS = 200
MOST_COLUMNS = 40
SAMPLES = 2
"""Prompts on the card."""
LONGEST = 1_000
"""The most characters of a text in a report; the store has the complete answers."""


def tables(sets: Sequence[AnswerSet]) -> list[dict[str, Any]]:
    """A table for each set of answers, in the given order."""
    return [_table(one) for one in sets[:MOST_SETS]]


def samples(sets: Sequence[AnswerSet], best: Sequence[str]) -> dict[str, Any] | None:
    """What the base model and one of the `best` runs (keys) answer to two prompts, in the first set with such a run.

    Prompts to which the two give different answers come first. Without answers of a base model, the run's alone.
    """
    for one in sets:
        ours = next((column for key in best for column in one.columns if column.run == key), None)
        base = next((column for column in one.columns if column.run == BASE_MODEL_KEY), None)
        if ours is not None:
            return _sample(one, ours, base)
    return None


def _sample(made: AnswerSet, ours: Column, base: Column | None) -> dict[str, Any]:
    columns = [column for column in (base, ours) if column is not None]
    outputs = list(zip(*([row["output"] for row in column.rows] for column in columns), strict=False))
    differing = [at for at, ones in enumerate(outputs) if len(set(ones)) > 1]
    chosen = sorted([*differing, *(at for at in range(len(outputs)) if at not in differing)][:SAMPLES])
    return {
        "how": made.how(),
        "prompts": [_text(question(made.prompts[at])) for at in chosen],
        "columns": [_column(replace(column, rows=[column.rows[at] for at in chosen])) | {
            "exact": column.exact,
            "judged": column.judged,
        } for column in columns],
        "of": len(made.prompts),
    }  # fmt: skip


def _table(made: AnswerSet) -> dict[str, Any]:
    prompts, columns = made.prompts[:MOST_PROMPTS], made.columns[:MOST_COLUMNS]
    return {
        "how": made.how(),
        "made_at": round(made.made_at, 1),
        "prompts": [_text(question(row)) for row in prompts],
        "right": [_text(row["answer"]) if "answer" in row else None for row in prompts] if made.judged else None,
        "columns": [_column(one) for one in columns],
        "prompts_left_out": len(made.prompts) - len(prompts),
        "columns_left_out": len(made.columns) - len(columns),
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "run": column.heading,
        "name": redact(column.name),
        "exact": column.exact,
        "judged": column.judged,
        "said": [_text(row["output"]) for row in column.rows[:MOST_PROMPTS]],
        "is_right": [row.get("exact") for row in column.rows[:MOST_PROMPTS]],
    }


def _text(text: str) -> str:
    text = redact(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
