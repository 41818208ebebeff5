"""Signals: SIGTERM that acts like Ctrl-C, so that both clean up, and Ctrl-C that ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """In the block, SIGTERM raises KeyboardInterrupt."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def exit_on_interrupt(message: str) -> Iterator[None]:
    """In the block, Ctrl-C prints the message to standard error and ends the process at once, without any cleanup.

    For a library that works in threads: KeyboardInterrupt would wait until they have finished.
    """

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{message}\n".encode())  # not sys.stderr: the interrupted code may be writing to it
        os._exit(128 + number)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
