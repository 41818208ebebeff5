"""What rows of `train` a split takes, in the notation of Hugging Face's datasets: `train[10%:20%]+train[:5]`."""

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


def overlap(first: str, second: str, rows: int | None) -> bool:
    """Whether two splits of one dataset certainly have rows in common. `rows`: of `train`, if that is known.

    >>> [overlap("train", other, None) for other in ("train[:5]", "test", "train[90%:]")]
    [True, False, True]
    >>> overlap("train[:95%]", "train[95%:]", None), overlap("train[:95%]", "train[:5]", None)
    (False, False)
    >>> overlap("train[:95%]", "train[:5]", 1000), overlap("validation", "validation", None)
    (True, True)
    """
    if first == second:
        return True
    parts = [[_PART.fullmatch(part.strip()) for part in split.split("+")] for split in (first, second)]
    if any(part is None for some in parts for part in some):
        return False
    return any(_meet(one, other, rows) for one in parts[0] for other in parts[1] if one and other)


def _meet(one: re.Match[str], other: re.Match[str], rows: int | None) -> bool:
    bounds = [text for text in (one[2], one[3], other[2], other[3]) if text is not None]
    if rows is None and any(match[2] is None and match[3] is None for match in (one, other)):
        return True  # one of them is all of train
    if rows is None:
        if any(text.startswith("-") for text in bounds) or len({text.endswith("%") for text in bounds}) > 1:
            return False
        rows = 100 if bounds[0].endswith("%") else max(int(text) for text in bounds) + 1
    (begin, end), (start, stop) = ((_bound(match[2], rows, 0), _bound(match[3], rows, rows)) for match in (one, other))
    return max(begin, start) < min(end, stop)


def _bound(text: str | None, rows: int, otherwise: int) -> int:
    """A slice's beginning or end as a number of rows."""
    if text is None:
        return otherwise
    number = round(int(text[:-1]) * rows / 100) if text.endswith("%") else int(text)
    return min(max(number + rows if number < 0 else number, 0), rows)
