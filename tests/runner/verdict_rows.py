"""Losses by row as an evaluation leaves them, for invented rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modal_app.held_out.row_losses import About, RowLosses


def row_losses(
    nll: Sequence[Sequence[float]],
    *,
    tokens: Sequence[Sequence[int]] | None = None,
    documents: Sequence[int] | None = None,
    datasets: Sequence[str] = (),
    dataset: Sequence[int] | None = None,
    length: Sequence[int] | None = None,
    ids: Sequence[int] | None = None,
    fingerprint: str = "rows",
) -> RowLosses:
    """`nll`: that of each row's turns. By default, each turn has one token, and each row is a known document."""
    rows = len(nll)
    tokens = [[1] * len(turns) for turns in nll] if tokens is None else tokens
    about = About(fingerprint, 20, 1.0, tuple(datasets), documents is not None)
    ids = list(range(1, rows + 1)) if ids is None else ids
    return RowLosses(
        about=about,
        id=np.array(ids, np.uint64),
        document=np.array(ids if documents is None else documents, np.uint64),
        dataset=np.array([0] * rows if dataset is None else dataset, np.uint16),
        length=np.array([10] * rows if length is None else length, np.int32),
        batch=np.zeros(rows, np.int32),
        turns=np.array([len(turns) for turns in nll], np.int32),
        tokens=np.array([one for turns in tokens for one in turns], np.int32),
        nll=np.array([one for turns in nll for one in turns], np.float64),
    )
