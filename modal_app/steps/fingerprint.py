"""Names rows by what the model sees of them: equal for the same tokens and labels, whatever held them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence

import datasets
import pyarrow as pa

BATCH_ROWS = 10_000


def row_digests(rows: datasets.Dataset) -> list[str]:
    """A hex sha256 per row, over its tokens and labels; over the whole row where it has none (preference pairs)."""
    if {"input_ids", "labels"} <= set(rows.column_names):
        return list(_token_digests(rows))
    return [_hexdigest(json.dumps(row, sort_keys=True, default=str).encode()) for row in rows.with_format(None)]


def multiset_digest(digests: Sequence[str]) -> str:
    """Equal for the same rows in another order, and for nothing else."""
    return _hexdigest("\n".join(sorted(digests)).encode())


def _token_digests(rows: datasets.Dataset) -> Iterator[str]:
    columns = rows.select_columns(["input_ids", "labels"]).with_format("arrow")
    for table in columns.iter(batch_size=BATCH_ROWS):
        parts = zip(_row_bytes(table["input_ids"]), _row_bytes(table["labels"]), strict=True)
        yield from (_hexdigest(tokens + b"|" + labels) for tokens, labels in parts)


def _row_bytes(column: pa.ChunkedArray) -> Iterator[bytes]:
    """Each row's integers as 64-bit bytes, however wide they were stored."""
    array = column.combine_chunks()
    values = array.flatten().to_numpy(zero_copy_only=False).astype("<i8")
    ends = array.value_lengths().to_numpy(zero_copy_only=False).cumsum()
    start = 0
    for end in ends:
        yield values[start:end].tobytes()
        start = end


def _hexdigest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
