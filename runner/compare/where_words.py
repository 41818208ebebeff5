"""Where one of two runs is better, in lines for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len, set_cell_size

from runner.console.harmless import harmless
from runner.console.numbers import difference
from runner.verdict.where import By, MovedRow, Where

SHOWN_ROWS = 5
"""Of each direction; --json has all."""
LONGEST_NAME = 40
TEXT_ROOM = 100
HEADINGS = {By.DATASET: "by dataset", By.LENGTH: "by length", By.TURN: "by turn"}
NOT_KNOWN = "It is unknown which rows are from the same document, so the intervals may be too narrow."


def where_lines(found: Where, keys: tuple[str, str]) -> list[str]:
    """`keys`: of the two runs."""
    documents = f" in {found.documents} documents" if found.documents_known else ""
    lines = [
        f"By token, on {found.rows} held-out rows{documents} ({keys[1]} minus {keys[0]}, 95 % interval):",
        *_table(found),
    ]
    if found.parts:
        lines.append(
            "The intervals of the parts hold for all parts together; the interval of all rows holds by itself."
        )
    lines.append("They hold for these two trained models, and do not include how much another seed would change.")
    if not found.documents_known:
        lines.append(NOT_KNOWN)
    for rows, word in ((found.better, "better"), (found.worse, "worse")):
        if rows:
            lines += ["", f"Rows at which {keys[1]} is {word} by the most (nats for the row; losses are per token):"]
            lines += [line for row in rows[:SHOWN_ROWS] for line in _row_lines(row, keys)]
    if max(len(found.better), len(found.worse)) > SHOWN_ROWS:
        lines.append("--json has twenty of each, with their texts.")
    return lines


def text_line(row: MovedRow, room: int = TEXT_ROOM) -> str:
    """The row's text in one line: its beginning, and its end, where the answer is."""
    return _in_room("".join(one.text for one in row.text), room)


def _table(found: Where) -> list[str]:
    figures = [("all rows", found.difference, found.low, found.high, found.rows)]
    figures += [(_name(one.name), one.difference, one.low, one.high, one.rows) for one in found.parts]
    width = max(cell_len(name) for name, *_ in figures)
    most = len(str(found.rows))
    lines = [
        f"  {set_cell_size(name, width)}  {difference(moved, '+')}  {interval(low, high):<20}  {rows:>{most}} rows"
        for name, moved, low, high, rows in figures
    ]
    return [lines[0], *_with_headings(found, lines[1:])]


def _with_headings(found: Where, lines: Sequence[str]) -> list[str]:
    printed: list[str] = []
    before: By | None = None
    for part, line in zip(found.parts, lines, strict=True):
        printed += [line] if part.by is before else [f" {HEADINGS[part.by]}", line]
        before = part.by
    return printed


def interval(low: float | None, high: float | None) -> str:
    """
    >>> interval(-0.01234, 0.5), interval(None, None)
    ('[-0.0123, +0.5000]', 'too few documents')
    """
    return "too few documents" if low is None or high is None else f"[{difference(low, '+')}, {difference(high, '+')}]"


def _row_lines(row: MovedRow, keys: tuple[str, str]) -> list[str]:
    first, second = row.losses
    lines = [f"  {row.moved:+9.3f}  {first:.4f} -> {second:.4f}  {text_line(row)}"]
    if row.answers is not None:
        lines += [f"{'':13}{key} answers: {_in_room(said, 80)}" for key, said in zip(keys, row.answers, strict=True)]
    return lines


def _name(text: str) -> str:
    """The end of a long one, the most informative part of a path."""
    line = harmless(" ".join(text.split()))
    return line if len(line) <= LONGEST_NAME else f"...{line[3 - LONGEST_NAME :]}"


def _in_room(text: str, room: int) -> str:
    line = harmless(" ".join(text.split()))
    if len(line) <= room:
        return line
    half = (room - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"
