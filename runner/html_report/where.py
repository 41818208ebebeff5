"""Where the best setting is better than the second, for the page. Only reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modal_app.store.layout import Store
from runner.compare.ranking import EVAL_LOSS, Row
from runner.compare.where_won import where_won
from runner.compare.where_words import HEADINGS, interval
from runner.console.redact import redact
from runner.files.held_out_answers import with_answers
from runner.html_report.curves import rounded
from runner.html_report.settings import Setting, ranked
from runner.verdict.where import By, MovedRow, Part, Where

LONGEST = 1_000
"""The most characters of a segment or an answer; `compare RUN RUN --json` has twice as many."""


def where_values(store: Store, found: Sequence[Setting]) -> dict[str, Any] | None:
    """Compares the best runs of the two best settings in the largest set of runs with the same held-out rows. None
    unless both have per-row losses."""
    largest: Sequence[Setting] = max(ranked(found), key=len, default=[])
    if len(largest) < 2:
        return None
    best, second = largest[:2]
    runs = (best.rows[0], second.rows[0])
    where, missing = where_won(*runs, EVAL_LOSS)
    if where is None:
        return None
    where = with_answers(where, store, runs[0].key, runs[1].key)
    several = any(part.by is By.DATASET for part in where.parts)
    return {
        "runs": [_run(one, row) for one, row in zip((best, second), runs, strict=True)],
        "rows": where.rows,
        "documents": where.documents if where.documents_known else None,
        "missing": missing,
        "parts": [_all_rows(where), *map(_part, where.parts)],
        "worse": [_row(one, names_dataset=several) for one in where.worse],
        "better": [_row(one, names_dataset=several) for one in where.better],
    }


def _run(setting: Setting, row: Row) -> dict[str, str]:
    return {"key": row.key, "name": redact(setting.name)}


def _all_rows(where: Where) -> dict[str, Any]:
    return {"by": "", "name": "all rows", "rows": where.rows} | _figures(where)


def _part(part: Part) -> dict[str, Any]:
    return {"by": HEADINGS[part.by], "name": part.name, "rows": part.rows} | _figures(part)


def _figures(one: Where | Part) -> dict[str, Any]:
    return {
        "losses": [rounded(value) for value in one.losses],
        "difference": rounded(one.difference),
        "interval": interval(one.low, one.high),
        "is_sure": one.low is not None and one.high is not None and (one.low > 0 or one.high < 0),
    }


def _row(row: MovedRow, *, names_dataset: bool) -> dict[str, Any]:
    return {
        "text": [[_cut(one.text), one.trained] for one in row.text],
        "dataset": row.dataset if names_dataset else None,
        "moved": rounded(row.moved),
        "losses": [rounded(value) for value in row.losses],
        "answers": row.answers and [_cut(one) for one in row.answers],
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
