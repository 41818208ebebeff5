"""A small terminal: it turns the bytes that a program writes into the lines that its user sees. It refuses control
sequences that it does not know, and wraps lines again when its size changes, as most terminals do.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field

from rich.cells import cell_len

_CONTROL = re.compile(r"\x1b\[(\??)([0-9;]*)([A-Za-z])")


@dataclass
class _Row:
    cells: list[str] = field(default_factory=list)
    """A wide character is followed by an empty cell."""
    wrapped: bool = False
    """Whether the next row continues this one."""

    def put(self, place: int, text: str) -> None:
        self.cells += [" "] * (place - len(self.cells))
        self.cells[place : place + cell_len(text)] = [text, *[""] * (cell_len(text) - 1)]


class Terminal:
    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.cursor_shown = True
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._unread = ""
        self._all = [_Row()]
        """With what has scrolled away."""
        self._row, self._column = 0, 0

    def feed(self, written: bytes) -> None:
        text = self._unread + self._decoder.decode(written)
        place = 0
        while place < len(text):
            if text[place] == "\x1b":
                found = _CONTROL.match(text, place)
                if found is None:
                    if len(text) - place < 20:
                        break  # the rest comes with the next bytes
                    raise AssertionError(f"an unknown control sequence: {text[place : place + 20]!r}")
                self._obey(found[1], found[2], found[3])
                place = found.end()
            else:
                self._show(text[place])
                place += 1
        self._unread = text[place:]

    def lines(self) -> list[str]:
        """What is visible, without the empty lines below."""
        shown = ["".join(row.cells).rstrip() for row in self._all[self._top :]]
        while shown and not shown[-1]:
            shown.pop()
        return shown

    def everything(self) -> list[str]:
        """All lines, including those that have scrolled away."""
        return ["".join(row.cells).rstrip() for row in self._all]

    def resize(self, columns: int, rows: int) -> None:
        cursor_line, cursor_place = 0, 0
        lines: list[list[str]] = [[]]
        for number, row in enumerate(self._all):
            if number == self._row:
                cursor_line, cursor_place = len(lines) - 1, len(lines[-1]) + self._column
            lines[-1] += row.cells
            if not row.wrapped:
                lines.append([])
        self._all = []
        for number, cells in enumerate(lines[:-1]):
            text = "".join(cells).rstrip()
            cells = cells[: cell_len(text)]
            starts = range(0, max(len(cells), 1), columns)
            if number == cursor_line:
                self._row = len(self._all) + min(cursor_place // columns, len(starts) - 1)
                self._column = min(cursor_place - columns * (self._row - len(self._all)), columns)
            self._all += [_Row(cells[at : at + columns], at + columns < len(cells)) for at in starts]
        self.columns, self.rows = columns, rows

    @property
    def _top(self) -> int:
        return max(len(self._all) - self.rows, 0)

    def _show(self, one: str) -> None:
        match one:
            case "\r":
                self._column = 0
            case "\n":
                self._down()
            case _:
                wide = cell_len(one)
                if self._column + wide > self.columns:
                    self._all[self._row].wrapped = True
                    self._down()
                    self._column = 0
                self._all[self._row].put(self._column, one)
                self._column += wide

    def _down(self) -> None:
        self._row += 1
        if self._row == len(self._all):
            self._all.append(_Row())

    def _obey(self, private: str, numbers: str, what: str) -> None:
        number = int(numbers) if numbers.isdecimal() else 0
        match private, what:
            case "", "m":
                pass
            case "?", "l" | "h" if number == 25:
                self.cursor_shown = what == "h"
            case "", "A":
                self._row = max(self._row - max(number, 1), self._top)
            case "", "H" if not numbers:
                self._row, self._column = self._top, 0
            case "", "J" if number == 2:
                self._all[self._top :] = [_Row() for _ in self._all[self._top :]]
            case "", "K" if number == 2:
                self._all[self._row] = _Row()
            case _:
                raise AssertionError(f"an unknown control sequence: {private}{numbers}{what}")
