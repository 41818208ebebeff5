"""Hashes of rows by what the model sees: equal for the same tokens and labels, in whatever type they are stored."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.features.features import require_decoding
from numpy.typing import NDArray

from modal_app.store.content import file_sha256

BATCH_ROWS = 10_000
UNDECODED_ROWS = 100


def row_digests(rows: datasets.Dataset, *, limit: int | None = None) -> list[str]:
    """A hex sha256 per row, over its tokens and labels; over the complete row if it has none (preference pairs).
    `limit`: at most so many tokens of each."""
    if {"input_ids", "labels"} <= set(rows.column_names):
        return list(_token_digests(rows, limit))
    whole = _undecoded(rows) if any(map(require_decoding, rows.features.values())) else rows.with_format(None)
    return [_hexdigest(json.dumps(row, sort_keys=True, default=str).encode()) for row in whole]


def row_digest(tokens: Sequence[int] | NDArray[Any], labels: Sequence[int], *, limit: int | None = None) -> str:
    """What `row_digests` gives for such a row."""
    both = (np.asarray(part[:limit], "<i8").tobytes() for part in (tokens, labels))
    return _hexdigest(b"|".join(both))


def multiset_digest(digests: Sequence[str]) -> str:
    """A hash that is equal for the same rows in any order, and for nothing else."""
    return _hexdigest("\n".join(sorted(digests)).encode())


def _undecoded(rows: datasets.Dataset) -> Iterator[Any]:
    """Rows with images or sounds as they are stored: decoded, their text would contain a memory address."""
    for table in rows.with_format("arrow").iter(batch_size=UNDECODED_ROWS):
        yield from (_by_content(row) for row in table.to_pylist())


def _by_content(value: Any) -> Any:
    """Files by their content: each attempt has its own folder, so their paths differ."""
    match value:
        case {"bytes": bytes(content), "path": _, **rest} if not rest:
            return _hexdigest(content)
        case {"bytes": None, "path": str(path), **rest} if not rest and os.path.isfile(path):
            return file_sha256(Path(path))
        case dict():
            return {name: _by_content(one) for name, one in value.items()}
        case list():
            return [_by_content(one) for one in value]
    return value


def token_columns(
    rows: datasets.Dataset, limit: int | None = None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The tokens and the labels of each row, whatever their integer type; with a limit, so many at most."""
    columns = rows.select_columns(["input_ids", "labels"]).with_format("arrow")
    for table in columns.iter(batch_size=BATCH_ROWS):
        yield from zip(_row_values(table["input_ids"], limit), _row_values(table["labels"], limit), strict=True)


def _token_digests(rows: datasets.Dataset, limit: int | None) -> Iterator[str]:
    for tokens, labels in token_columns(rows, limit):
        yield _hexdigest(tokens.tobytes() + b"|" + labels.tobytes())


def _row_values(column: pa.ChunkedArray, limit: int | None) -> Iterator[NDArray[np.int64]]:
    array = column.combine_chunks()
    values = array.flatten().to_numpy(zero_copy_only=False).astype("<i8")
    ends = array.value_lengths().to_numpy(zero_copy_only=False).cumsum()
    start = 0
    for end in ends:
        yield values[start:end][:limit]
        start = end


def _hexdigest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
