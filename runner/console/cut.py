"""Texts cut to a number of columns of a terminal."""

from __future__ import annotations

from rich.cells import cell_len, chop_cells


def end_of(text: str, room: int, ellipsis: str = "…") -> str:
    """The end of a text, the most informative part of a path.

    >>> end_of("/models/base-7b", 8), start_of("/models/base-7b", 8)
    ('…base-7b', '/models…')
    """
    if cell_len(text) <= room:
        return text
    text = text[-4 * max(room, 1) :]  # measuring a long text once for each character takes seconds
    while text and cell_len(text) > room - cell_len(ellipsis):
        text = text[1:]
    return f"{ellipsis}{text}"[-max(room, 0) :] if room > 0 else ""


def start_of(text: str, room: int, ellipsis: str = "…") -> str:
    if cell_len(text) <= room:
        return text
    left = room - cell_len(ellipsis)
    return f"{chop_cells(text, left)[0]}{ellipsis}" if left > 0 else ellipsis[: max(room, 0)]
