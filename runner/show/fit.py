"""Values shortened to fit, as long as they still distinguish runs. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len

from runner.compare.params import show_values
from runner.console.cut import end_of, start_of
from runner.console.harmless import harmless

LONGEST = 200
"""Columns of a value. A chat template has thousands of characters."""


def texts_of(values: Sequence[Any], encoding: str = "utf-8") -> tuple[str, ...]:
    """Values as `compare` shows them. One line each, not longer than anything that a terminal has room for."""
    texts = tuple(one_line(text, encoding) for text in show_values(values))
    return shortened(texts, LONGEST, "...") or tuple(map(_with_digest, texts))


def _with_digest(text: str) -> str:
    """A long text that differs from others only in its middle."""
    if len(text) <= LONGEST:
        return text
    return f"{text[: LONGEST - 10]}... {hashlib.sha256(text.encode()).hexdigest()[:6]}"


def one_line(text: str, encoding: str = "utf-8") -> str:
    """The text as the terminal shows it: what its encoding lacks is escaped, which takes more room."""
    return harmless(" ".join(text.split())).encode(encoding, "backslashreplace").decode(encoding)


def shortened(values: Sequence[str], room: int, ellipsis: str) -> tuple[str, ...] | None:
    """The values, each at most `room` columns wide; None if two different ones would look the same.

    >>> shortened(["/data/a/rows.jsonl", "/data/b/rows.jsonl"], 7, "…")
    ('…a/row…', '…b/row…')
    """
    if all(cell_len(one) <= room for one in values):
        return tuple(values)
    different = len(set(values))
    for cut in _ways(values, room, ellipsis):
        if len(set(cut)) == different and all(cell_len(one) <= room for one in cut):
            return cut
    return None


def narrowest(values: Sequence[str], ellipsis: str, least: int = 4) -> int:
    """The least room in which the values still differ."""
    widest = max(map(cell_len, values), default=0)
    return next((room for room in range(least, widest) if shortened(values, room, ellipsis) is not None), widest)


def _ways(values: Sequence[str], room: int, ellipsis: str) -> Iterator[tuple[str, ...]]:
    """Ends, beginnings, then what follows the common beginning."""
    yield tuple(end_of(one, room, ellipsis) for one in values)
    yield tuple(start_of(one, room, ellipsis) for one in values)
    shared = _shared(values)
    rest = [f"{ellipsis}{one[shared:]}" for one in values]
    yield tuple(start_of(one, room, ellipsis) for one in rest)


def _shared(values: Sequence[str]) -> int:
    """The length of the common beginning of those that are not short."""
    first, last = min(values), max(values)
    return next((place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other),
                min(len(first), len(last)))  # fmt: skip
