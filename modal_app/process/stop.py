"""Requests to stop: SIGTERM and SIGINT, before and during training.

Before training begins there is nothing to save: the process ends at once, in the signal's handler. (An exception would
have to pass through an import's C++ code, which aborts.) During training, the signal only sets a flag, which the
training loop reads after each step to save a checkpoint and end cleanly.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """The step ended on request, and can be continued."""


class AtRung(Exception):
    """A run of a search has stopped at a rung, and can be continued."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        """`facts`: those of its outcome."""
        super().__init__(_described(facts))
        self.facts = facts


def _described(facts: Mapping[str, Any]) -> str:
    at = f"at step {facts['step']} of {facts['max_steps']}"
    if facts["why"]:
        return f"{facts['why']} {at}, before rung {facts['rung']} of {facts['rungs']}"
    return f"{at}, it was at place {facts['place']} of {facts['of']} that had come to rung {facts['rung']} by then"


_requested = False
_process = 0
_give_up: Callable[[str], NoReturn] | None = None


def set_stop_handler(give_up: Callable[[str], NoReturn] | None) -> None:
    """Handle the signals from here on: call `give_up` with the signal's name, or (None) only set the flag.

    To be repeated when training begins, since Axolotl installs its own handler for SIGINT.
    """
    global _process, _give_up
    _process, _give_up = os.getpid(), give_up
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def forget() -> None:
    """Restore the default handlers, in a child that was just forked and has nothing to save yet."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def requested() -> bool:
    return _requested


def end_with_parent(number: signal.Signals) -> None:
    """Let the kernel send this process the signal `number` when its parent has ended (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, number)


@functools.cache
def shield_children() -> None:
    """Keep the stop signals of this process's group away from the children that it forks from now on, its data loaders.

    If one of them ended on SIGTERM, the training would fail before it has saved its checkpoint. They leave the group,
    and Linux ends them with their parent.
    """
    if sys.platform == "linux":
        os.register_at_fork(after_in_child=_leave_the_group)


def _leave_the_group() -> None:
    os.setpgid(0, 0)
    end_with_parent(signal.SIGKILL)


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _requested
    if os.getpid() != _process:  # a pool's process, forked from this one with its handlers
        os._exit(128 + number)
    first, _requested = not _requested, True
    if first and _give_up is not None:
        _give_up(signal.Signals(number).name)
