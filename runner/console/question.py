"""Asks before an action that cannot be undone: y or N on a terminal. Without a terminal, only a flag confirms it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from runner.console.harmless import harmless
from runner.errors import SweepError


def is_interactive() -> bool:
    """Whether a question can be read, and answered."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def confirm(
    question: str, *, no_terminal: str, refused: str, on_terminal: bool, ask: Callable[[], str] = input
) -> None:
    """Raises SweepError if the answer is not yes: `no_terminal` if it cannot ask, otherwise `refused`."""
    if not on_terminal:
        raise SweepError(no_terminal)
    try:
        sys.stderr.write(harmless(f"{question} [y/N] "))
        sys.stderr.flush()
        answer = ask()
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise SweepError(refused)
