"""The answers of a sweep's runs -> the values that the page shows side by side. Only reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modal_app.store.layout import Store
from runner.console.redact import redact
from runner.files.answers import AnswerSet, Column, answer_sets, question

MOST_SETS = 5
MOST_PROMPTS = 200
MOST_COLUMNS = 40
LONGEST = 1_000
"""The most characters of a text in a report; the store has the complete answers."""


def answers(store: Store, names: Mapping[str, str]) -> list[dict[str, Any]]:
    """A table for each set of answers, the largest first. `names`: run key -> name, in the order of the columns."""
    return [_table(one) for one in answer_sets(store, names)[:MOST_SETS]]


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
