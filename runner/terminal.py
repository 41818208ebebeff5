"""The two consoles: results on stdout, progress and messages on stderr. In a pipe lines are wide, not wrapped."""

from __future__ import annotations

import sys

from rich.console import Console

PIPE_WIDTH = 200


def results() -> Console:
    """Where rows and plans go."""
    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def messages() -> Console:
    """Where progress and errors go."""
    return Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)
