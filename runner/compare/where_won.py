"""Two runs of stores -> where one is better than the other, with the texts of the rows and the names that people use.

Only reads. Without per-row losses it does not import numpy.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from modal_app.held_out.held_out import SHOWN_CHARACTERS, HeldOut, Segment
from modal_app.store.layout import HELD_OUT, Store
from modal_app.store.step import StepKind
from runner.compare.ranking import EVAL_LOSS, Metric, Row
from runner.compare.row_losses import losses_files, losses_of
from runner.console.redact import redact, redact_cut
from runner.store.run_config import read_identity
from runner.store.run_state import RunStatus, status_text
from runner.verdict.where import By, MovedRow, Where

INPUTS, HASH_DIGITS = "inputs", 16
"""A local file is `inputs/<so many digits of its hash>.<ending>` in the config of a step."""
NO_PAIR = "It is unknown where one is better: their per-row losses are of different rows, not finite, or damaged."
NO_TEXTS = (
    "The texts of the rows are not stored: the dataset was prepared by an earlier version of axosweep, or the runs "
    "read their own data."
)


def where_won(first: Row, second: Row, metric: Metric) -> tuple[Where | None, str]:
    """Null for another metric than the eval loss, since rows have no other, and for runs with different held-out rows.
    With it a sentence about what is missing; empty if nothing is."""
    if metric != EVAL_LOSS or not first.eval_fingerprint or first.eval_fingerprint != second.eval_fingerprint:
        return None, ""
    runs = (first, second)
    if stopped := [row for row in runs if row.status is RunStatus.AT_RUNG]:
        return None, " ".join(map(_not_trained, stopped))
    if not all(map(losses_files, runs)):
        lacking = [row for row in runs if row.store and not losses_files(row)]
        return None, " ".join(map(_why_not, lacking))
    from runner.verdict.paired import where

    losses = [losses_of(row) for row in runs]
    found = where(losses[0], losses[1]) if losses[0] and losses[1] else None
    if found is None:
        return None, NO_PAIR
    return _described(found, runs)


def _why_not(row: Row) -> str:
    if reason := row.record.get("no_row_losses"):
        return f"It is unknown where one is better: {row.key} has no per-row losses ({reason})."
    return f"It is unknown where one is better: {row.key} has no per-row losses; `axosweep eval {row.key}` adds them."


def _not_trained(row: Row) -> str:
    return (
        f"Where one is better is unknown: {row.key} is {status_text(row.status, None, row.rung or 0)}, with fewer "
        f"steps than a finished run; to finish it, use `axosweep resume {row.key}`."
    )


def _described(found: Where, runs: Sequence[Row]) -> tuple[Where, str]:
    """With names and texts, and a sentence if there are no texts."""
    stores = [Store(Path(str(row.store))) for row in runs]
    names: dict[str, str] = {}
    texts: Mapping[str, tuple[Segment, ...]] = {}
    for store, row in zip(stores, runs, strict=True):
        names = _inputs(store, row.key) | names
        texts = texts or _texts(store, row.data_key, {int(one.id, 16) for one in found.moved})

    def with_text(row: MovedRow) -> MovedRow:
        dataset = None if row.dataset is None else _named(row.dataset, names)
        return replace(row, dataset=dataset, text=texts.get(row.id, ()))

    described = replace(
        found,
        parts=tuple(replace(one, name=_named(one.name, names)) if one.by is By.DATASET else one for one in found.parts),
        better=tuple(map(with_text, found.better)),
        worse=tuple(map(with_text, found.worse)),
    )
    return described, "" if texts or not found.moved else NO_TEXTS


def _texts(store: Store, data_key: str, rows: Collection[int]) -> dict[str, tuple[Segment, ...]]:
    """By the id of the row, without secrets."""
    held_out = HeldOut.read(store.prepared_dataset(data_key) / HELD_OUT, texts_of=rows)
    return {
        f"{row.id:016x}": tuple(Segment(_shown(one.text), one.trained) for one in row.text)
        for row in (held_out.rows if held_out else ())
        if row.text
    }


def _shown(text: str) -> str:
    return redact_cut(text) if len(text) >= SHOWN_CHARACTERS else redact(text)


def _inputs(store: Store, run: str) -> dict[str, str]:
    """What the user calls the local files that a run reads, by the beginnings of their hashes."""
    inputs = read_identity(store.folder(StepKind.TRAIN, run).identity).get("inputs") or ()
    return {str(one.get("identity"))[:HASH_DIGITS]: str(one.get("text")) for one in inputs}


def _named(dataset: str, names: Mapping[str, str]) -> str:
    """The dataset as the user names it: in the store, a local file is named by its content."""
    path, *rest = dataset.split(" ", 1)
    folder, _, name = path.partition("/")
    known = names.get(name[:HASH_DIGITS]) if folder == INPUTS else None
    return redact(" ".join([known or path, *rest]))
