"""The two consoles: results on stdout, progress and messages on stderr. In a pipe, nothing is wrapped or cut. If
the reader closes the pipe (| head), the command goes on without output and ends with its own exit code. What others
have written is neutralized here, for all that is printed.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from runner.console.harmless import harmless

_ESCAPE = "axosweep-escape"
PIPE_WIDTH = 100_000
"""Columns of a pipe: rich cuts a cell that does not fit."""


class _OutputConsole(Console):
    """Rich's own console ends the process with 1 when the reader has closed the pipe, and prints control characters of
    a text. Also in a pipe they are neutralized: `| less -R` and `| head` lead to a terminal. Only rich's own styles and
    cursor movements get through.
    """

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else harmless(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)

    def on_broken_pipe(self) -> None:
        stream = sys.stderr if self.stderr else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def results() -> Console:
    """Where rows and plans go."""
    return _OutputConsole(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


_redrawn: list[Console] = []
"""The console that has lines which are redrawn in place, if any."""


@contextlib.contextmanager
def redrawn(console: Console) -> Iterator[None]:
    """While the body runs, the console has lines that are redrawn in place: messages have to be printed by it, above
    them. Printed by another console, they would be overwritten, and leave a part of the lines behind."""
    _redrawn.append(console)
    try:
        yield
    finally:
        _redrawn.remove(console)


def messages() -> Console:
    """Where progress and errors go."""
    if _redrawn:
        return _redrawn[-1]
    return _OutputConsole(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def result(text: str, style: str | None = None) -> None:
    """Print a result: one line, or several."""
    say(results(), text, style)


def message(text: str, style: str | None = None) -> None:
    """Print a message: a note, or an error."""
    say(messages(), text, style)


def write(text: str) -> None:
    """Print a text for programs to stdout: unchanged in a pipe, neutralized on a terminal."""
    sys.stdout.write(harmless(text) if sys.stdout.isatty() else text)


def say(console: Console, text: str, style: str | None = None) -> None:
    """Print the text as it is: markup is not interpreted, and only the terminal wraps lines."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def print_anything() -> None:
    """Print what the terminal's encoding lacks as an escape, and the bytes of a path as they are, without an error: a
    path may be in another encoding, and a row in any language, also in the C locale.
    """
    codecs.register_error(_ESCAPE, _escaped)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ESCAPE)


def _escaped(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    escaped = [
        bytes([ord(one) - 0xDC00]) if "\udc80" <= one <= "\udcff" else one.encode("ascii", "backslashreplace")
        for one in text
    ]
    return b"".join(escaped), error.end


def open_closed() -> None:
    """Connect the streams that the shell has closed (`>&-`) to the null device. Otherwise, what is printed would go
    into the next file that is opened.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == number:
                os.set_inheritable(number, True)
            else:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))
