"""Asked to stop: SIGTERM and SIGINT, before and during training.

Before training begins there is nothing to keep, so the signal ends the work at once (an exception). While it trains
the signal only raises a flag, which the training loop reads after each step to save a checkpoint and end cleanly.
"""

from __future__ import annotations

import signal
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequested(BaseException):
    """Not an Exception, so that no library takes it for an error to recover from."""


_requested = False
_deferred = False


def install(*, deferred: bool) -> None:
    """Answer the signals from here on. Repeated, since Axolotl puts its own handler for SIGINT."""
    global _deferred
    _deferred = deferred
    for number in SIGNALS:
        signal.signal(number, _on_signal)


def reset() -> None:
    """Forget earlier requests and leave the signals to their defaults: for a child just forked."""
    global _requested, _deferred
    _requested = _deferred = False
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def requested() -> bool:
    return _requested


def _on_signal(number: int, frame: FrameType | None) -> None:
    global _requested
    first, _requested = not _requested, True
    if first and not _deferred:
        raise StopRequested(signal.Signals(number).name)
