"""The one error that a user sees: what was found, what was expected, what to do. And the exit codes."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Callable, Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """How every command ends."""

    SUCCEEDED = 0
    """Everything succeeded, or was finished before."""
    FAILED = 1
    """A run or a step failed, or `doctor` found a problem."""
    MISTAKE = 2
    """A mistake in the request, or a place that cannot be written to. The message says what to do."""
    UNDECIDED = 3
    """`best --decided`, `settle`: no setting is shown to be better than all others. What is printed is the same as
    with 0."""
    INTERRUPTED = 128 + signal.SIGINT
    """Ctrl-C. The same command continues where this one ended."""


class SweepError(Exception):
    """A user's mistake. Shown as it is, without a traceback; the exit code is 2. Without text, it has been shown."""


class PlanRefused(SweepError):
    """What keeps a plan from starting. With --json, the plan and all its findings have been printed."""


def did_you_mean(word: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """A sentence with the nearest known words, as `shown` writes them, or nothing when none is near.

    >>> did_you_mean("learnig_rate", ["learning_rate", "lora_r"])
    ' Did you mean learning_rate?'
    >>> did_you_mean("zzz", ["learning_rate"])
    ''
    """
    near = difflib.get_close_matches(word, dict.fromkeys(known), n=3, cutoff=0.6)
    return f" Did you mean {' or '.join(map(shown, near))}?" if near else ""
