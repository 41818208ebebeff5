"""A store whose runs have random per-row losses, from which a comparison derives its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modal_app.held_out.row_losses import About, RowLosses
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.types import Run
from tests.runner.builders import finish_run, open_sweep, run

ROWS, TOKENS = 400, 20


def draw_losses(
    mean: float, *, own: int, rows: int = ROWS, spread: float = 0.05, documents_known: bool = True, other_rows: int = 0
) -> RowLosses:
    """Rows whose difficulty all runs share, with a random part for each run, drawn with `own`. The mean over tokens is
    exactly `mean`."""
    shared, drawn = np.random.default_rng(0), np.random.default_rng(own)
    by_row = shared.normal(0, 0.5, rows) + drawn.normal(0, spread, rows)
    nll = (by_row - by_row.mean() + mean) * TOKENS
    ones = np.ones(rows, np.int32)
    return RowLosses(
        About("rows", 9, mean, ("a.jsonl",), documents_known),
        id=np.arange(rows, dtype=np.uint64) + np.uint64(other_rows),
        document=np.arange(rows, dtype=np.uint64) // np.uint64(2),
        dataset=np.zeros(rows, np.uint16),
        length=2 * TOKENS * ones,
        batch=np.arange(rows, dtype=np.int32) // 2,
        turns=ones,
        tokens=TOKENS * ones,
        nll=nll,
    )


def judged_sweep(
    store: Store, settings: Mapping[float, float], *, seeds: int = 1, name: str = "judged", **rest: Any
) -> tuple[str, list[Run]]:
    """A finished sweep over learning rates, with the loss of each, and seeds 1 to `seeds`. Returns its id and runs."""
    runs: list[Run] = []
    for rate, mean in settings.items():
        for seed in range(1, seeds + 1):
            one = run({"learning_rate": rate, "seed": seed}, overrides=[f"learning_rate={rate}", f"seed={seed}"])
            off = 0.002 * (seed - (seeds + 1) / 2)
            finish_run(store, one, {0: 5.0, 9: mean + off})
            write_losses(store, one, draw_losses(mean + off, own=len(runs) + 1, **rest))
            runs.append(one)
    return open_sweep(store, runs, name).sweep, runs


def write_losses(store: Store, one: Run, losses: RowLosses) -> Path:
    path = store.folder(StepKind.TRAIN, one.key).losses
    losses.write(path)
    return path
