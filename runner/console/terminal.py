"""The two consoles: results on stdout, progress and messages on stderr. In a pipe nothing is wrapped or cut, and when
its reader has left (| head), what is being done goes on unseen and ends with its own exit code.
"""

from __future__ import annotations

import os
import sys

from rich.console import Console

PIPE_WIDTH = 100_000
"""Columns of a pipe: rich cuts a cell that does not fit."""


class _Unread(Console):
    """Rich's own ends the process with 1 when nobody reads it any more."""

    def on_broken_pipe(self) -> None:
        stream = sys.stderr if self.stderr else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def results() -> Console:
    """Where rows and plans go."""
    return _Unread(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def messages() -> Console:
    """Where progress and errors go."""
    return _Unread(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


def result(text: str, style: str | None = None) -> None:
    """One of the results: a line, or several."""
    say(results(), text, style)


def message(text: str, style: str | None = None) -> None:
    """What is said beside the results."""
    say(messages(), text, style)


def say(console: Console, text: str, style: str | None = None) -> None:
    """The text as it is: what looks like markup stays, and lines are wrapped by the terminal alone."""
    console.print(text, style=style, markup=False, soft_wrap=True)


def open_closed() -> None:
    """Where the shell has closed a stream (`>&-`) Python has none, and the next file that is opened would get what is
    printed: what nobody reads goes nowhere, and there is nothing to be read.
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
