"""The two consoles: results on stdout, progress and messages on stderr. In a pipe nothing is wrapped or cut."""

from __future__ import annotations

import sys

from rich.console import Console

PIPE_WIDTH = 100_000
"""Columns of a pipe: rich cuts a cell that does not fit."""


def results() -> Console:
    """Where rows and plans go."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def messages() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)
