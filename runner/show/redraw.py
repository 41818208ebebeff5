"""Redraws lines in place on a terminal, also after its window has changed its size."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from rich.cells import cell_len
from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from runner.console import terminal
from runner.show.live_rows import ASCII, UNICODE, Marks
from runner.show.screen import Size


def can_redraw(console: Console) -> bool:
    """Whether the console is a terminal that can move its cursor."""
    return console.is_terminal and not console.is_dumb_terminal


def marks_of(console: Console) -> Marks:
    return UNICODE if console.encoding.startswith("utf") else replace(ASCII, encoding=console.encoding)


@dataclass(slots=True)
class Redraw:
    """Lines at the end of a terminal's output. What is printed meanwhile appears above them."""

    console: Console
    _live: Live = field(init=False)
    _open: contextlib.ExitStack = field(init=False)
    _drawn: Sequence[Text] = ()
    _size: Size = field(default_factory=lambda: Size(0, 0))

    _out_of_reach: bool = False
    """Whether a part of a frame has scrolled away."""

    def __post_init__(self) -> None:
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._open = contextlib.ExitStack()
        self._open.enter_context(terminal.redrawn(self.console))
        self._open.enter_context(self._live)

    def show(self, lines_for: Callable[[Size], Sequence[Text]]) -> None:
        """Replace the lines by others, made for the present size."""
        size = Size(*self.console.size)
        if self._drawn and size != self._size:
            self._clear(size)
        lines = [*lines_for(Size(size.width, max(size.height - 1, 1)))]
        for line in lines:
            line.no_wrap = True
        self._size, self._drawn = size, lines
        self._live.update(Group(*lines), refresh=True)

    def close(self) -> None:
        """Remove the lines."""
        self._open.close()

    def _clear(self, size: Size) -> None:
        """Most terminals wrap the lines again when they become narrower, so the cursor is further from the first one
        than rich believes. If the first one is out of reach, the terminal is cleared, also when it shows it again."""
        rows = sum(max(-(-cell_len(line.plain) // size.width), 1) for line in self._drawn)
        self._out_of_reach |= rows > size.height
        if self._out_of_reach:
            self.console.clear()
            return
        for _ in range(rows - len(self._drawn)):
            self.console.control(
                Control((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1), ControlType.CARRIAGE_RETURN)
            )
