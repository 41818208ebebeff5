"""Asks before what cannot be taken back: y or N on a terminal; elsewhere nobody can say yes but a flag."""

from __future__ import annotations

import sys
from collections.abc import Callable

from runner.errors import SweepError


def is_interactive() -> bool:
    """Whether a question can be read, and answered."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(question: str, *, alone: str, refused: str, on_terminal: bool, ask: Callable[[], str] = input) -> None:
    """Raises SweepError without a yes: `alone` where nobody can be asked, `refused` where somebody was."""
    if not on_terminal:
        raise SweepError(alone)
    try:
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        answer = ask()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise SweepError(refused)
