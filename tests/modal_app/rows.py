"""The losses of held-out rows that a step has left, and the loss that Axolotl's Trainer computes from such rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modal_app.held_out.row_losses import RowLosses
from modal_app.store.layout import Store
from modal_app.store.step import StepKind


def read_rows(path: Path) -> RowLosses:
    found = RowLosses.read(path)
    assert found is not None, f"{path} is missing or damaged"
    return found


def evaluated_rows(store: Store, run: str) -> RowLosses:
    """The losses of the only evaluation on held-out rows that a run, or the base model, has."""
    (found,) = (
        path
        for kind, key in store.after(run)
        if kind is StepKind.EVALUATE and (path := store.folder(kind, key).losses).exists()
    )
    return read_rows(found)


def trainers_loss(losses: RowLosses, *, ranks: int = 1, packed: bool = False) -> float:
    """The mean of the batches' means, each weighted with its number of rows, or all equally if they are packed.

    On several ranks a batch's sum is divided by the tokens of the batches that the ranks rate at the same time. Rows
    that were computed a second time count in their batch's loss, but are not among its rows.
    """
    rated = losses.batch >= 0
    nll, tokens = losses.row_nll, losses.row_tokens
    batches = np.concatenate([losses.batch[rated], np.array([batch for batch, _ in losses.about.repeated], np.int32)])
    rows = np.concatenate([np.flatnonzero(rated), np.array([row for _, row in losses.about.repeated], np.int64)])
    count = -(-(int(batches.max()) + 1) // ranks) * ranks
    sums = np.bincount(batches, weights=nll[rows], minlength=count).reshape(-1, ranks)
    trained = np.bincount(batches, weights=tokens[rows], minlength=count).reshape(-1, ranks)
    means = sums / trained.sum(axis=1, keepdims=True) * ranks
    own = np.bincount(losses.batch[rated], minlength=count).reshape(-1, ranks).astype(np.float64)
    weights = np.sign(own) if packed else own
    return float((means * weights).sum() / weights.sum())
