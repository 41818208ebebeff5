"""Signals to the process groups that steps and servers lead. Standard library."""

from __future__ import annotations

import contextlib
import os


def signal_group(group: int, number: int) -> None:
    """Send a signal to every process of a group, if any is left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
