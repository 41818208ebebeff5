"""The losses of held-out rows, as the ranks have computed them, and from them one for each row. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from modal_app.held_out.row_losses import About, RowLosses
from modal_app.steps.batch_rows import KnownRows

LEFT_OUT = -1
"""The batch number of a row that the Trainer's evaluation has left out."""


@dataclass(frozen=True, slots=True)
class RatedRow:
    """The losses of a row, as one rank has computed them."""

    key: bytes
    batch: int
    """Counted over all ranks."""
    length: int
    tokens: tuple[int, ...]
    nll: tuple[float, ...]


def by_turn(labels: NDArray[np.int64], losses: NDArray[np.float64]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The number of trained tokens in each contiguous stretch of them, and their summed loss."""
    trained = np.concatenate([[False], labels != -100, [False]])
    edges = np.flatnonzero(trained[1:] != trained[:-1])
    spans = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    return tuple(end - start for start, end in spans), tuple(float(losses[start:end].sum()) for start, end in spans)


def missing_rows(known: KnownRows, rated: Sequence[RatedRow]) -> list[tuple[int, bytes]]:
    """The held-out rows that have no losses yet: their places in the dataset, and their keys."""
    missing: list[tuple[int, bytes]] = []
    counts = Counter(row.key for row in rated)
    for at, key in enumerate(known.keys):
        counts[key] -= 1
        if counts[key] < 0:
            missing.append((at, key))
    return missing


def row_losses(known: KnownRows, rated: Sequence[RatedRow], about: About) -> RowLosses | None:
    """One for each held-out row, in the dataset's order; None if one has no losses.

    If all ranks have equally many rows, some rows are computed twice: the first result of each counts.
    """
    by_key: dict[bytes, list[RatedRow]] = defaultdict(list)
    for one in sorted(rated, key=lambda row: row.batch):
        by_key[one.key].append(one)
    places: dict[bytes, list[int]] = defaultdict(list)
    for at, key in enumerate(known.keys):
        places[key].append(at)
    if any(len(by_key[key]) < len(found) for key, found in places.items()):
        return None
    rows = [by_key[key][places[key].index(at)] for at, key in enumerate(known.keys)]
    again = [(one.batch, found[0]) for key, found in places.items() for one in by_key[key][len(found) :]]
    return RowLosses(
        about=replace(about, repeated=tuple(again)),
        id=known.ids,
        document=known.ids,
        dataset=np.zeros(len(rows), np.uint16),
        length=np.array([row.length for row in rows], np.int32),
        batch=np.array([row.batch for row in rows], np.int32),
        turns=np.array([len(row.tokens) for row in rows], np.int32),
        tokens=np.array([count for row in rows for count in row.tokens], np.int32),
        nll=np.array([nll for row in rows for nll in row.nll], np.float64),
    )
