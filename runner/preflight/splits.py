"""How many rows of `train` a split takes, in the notation of Hugging Face's datasets: `train[10%:20%]+train[:5]`."""

from __future__ import annotations

import re

_PART = re.compile(r"(train|all)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def rows_of_split(split: str, rows: int) -> int | None:
    """Of a file or a split with that many rows; None for a split that is not part of `train` or not understood.

    >>> [rows_of_split(split, 200) for split in ("train", "train[:5]", "train[90%:]", "train[-3:]+train[:2]", "test")]
    [200, 5, 20, 5, None]
    """
    parts = [_PART.fullmatch(part.strip()) for part in split.split("+")]
    matches = [part for part in parts if part is not None]
    if len(matches) < len(parts):
        return None
    return sum(max(_bound(part[3], rows, rows) - _bound(part[2], rows, 0), 0) for part in matches)


def _bound(text: str | None, rows: int, otherwise: int) -> int:
    """A slice's beginning or end as a number of rows."""
    if text is None:
        return otherwise
    number = round(int(text[:-1]) * rows / 100) if text.endswith("%") else int(text)
    return min(max(number + rows if number < 0 else number, 0), rows)
