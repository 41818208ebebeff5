"""Finds the held-out rows in the batches of an evaluation: packed or padded, and by their content alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import datasets
import numpy as np
from numpy.typing import NDArray

from modal_app.held_out.row_losses import row_ids
from modal_app.steps.fingerprint import multiset_digest, row_digests, token_columns

IGNORED_LABEL = -100
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class KnownRows:
    """The held-out rows, in the dataset's order."""

    fingerprint: str
    ids: NDArray[np.uint64]
    keys: tuple[bytes, ...]
    """Of `row_key`."""
    counts: Mapping[bytes, int]
    """How many rows have this key."""

    @classmethod
    def of(cls, rows: datasets.Dataset) -> KnownRows:
        digests = row_digests(rows)
        keys = tuple(row_key(tokens, labels) for tokens, labels in token_columns(rows))
        return cls(multiset_digest(digests), row_ids(digests), keys, Counter(keys))


@dataclass(frozen=True, slots=True)
class FoundRow:
    """A row's place in a batch."""

    key: bytes
    sequence: int
    start: int
    end: int


def row_key(tokens: Integers, labels: Integers) -> bytes:
    """Equal for rows with equal tokens and equal labels after the first: nothing predicts a row's first token, and some
    collators remove its label."""
    content = tokens.astype("<i8").tobytes() + b"|" + labels[1:].astype("<i8").tobytes()
    return hashlib.sha256(content).digest()


def find_rows(
    known: Mapping[bytes, int], tokens: Integers, labels: Integers, positions: Integers | None, mask: Integers | None
) -> list[FoundRow] | None:
    """All rows of a batch, given as matrices sequences x tokens; None if it has a trained token that is in no row.

    `positions` begin at 0 with each packed row, and again with the padding. `mask` is 0 for padding, and counts the
    packed rows in some collators.
    """
    found: list[FoundRow] = []
    for sequence, (row_tokens, row_labels) in enumerate(zip(tokens, labels, strict=True)):
        bounds = _bounds(
            len(row_tokens),
            None if positions is None else positions[sequence],
            None if mask is None else mask[sequence],
        )
        for start, end in bounds:
            place = _place(known, row_tokens, row_labels, start, end)
            if place is not None:
                found.append(FoundRow(place[0], sequence, *place[1:]))
            elif (row_labels[start:end] != IGNORED_LABEL).any():
                return None
    return found


def _bounds(length: int, positions: Integers | None, mask: Integers | None) -> Iterator[tuple[int, int]]:
    """Where rows may begin and end. A part that is padding throughout may be among them."""
    cut = np.zeros(length + 1, bool)
    cut[[0, length]] = True
    if positions is not None:
        cut[:length] |= positions == 0
    if mask is not None:
        cut[1:length] |= mask[1:] != mask[:-1]
    edges = np.flatnonzero(cut)
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if mask is None or mask[start]:
            yield start, end


def _place(
    known: Mapping[bytes, int], tokens: Integers, labels: Integers, start: int, end: int
) -> tuple[bytes, int, int] | None:
    """The row's key and its place between `start` and `end`, without padding that nothing marks as such."""
    key = row_key(tokens[start:end], labels[start:end])
    if key in known:
        return key, start, end
    padding = tokens[end - 1]
    for shorter in range(end - 1, start, -1):
        if tokens[shorter] != padding or labels[shorter] != IGNORED_LABEL:
            break
        if (key := row_key(tokens[start:shorter], labels[start:shorter])) in known:
            return key, start, shorter
    return None
