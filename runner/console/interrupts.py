"""Signals: SIGTERM that acts like Ctrl-C, so that both clean up, and Ctrl-C that ends the process at once."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

NUMBERS = (signal.SIGINT, signal.SIGTERM)
ECHO_S = 1.0
"""A signal so soon after another one is the same request: timeout(1) sends two."""


class Requests:
    """The signals that this process was sent, without their echoes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock, self.last = clock, float("-inf")

    def is_new(self) -> bool:
        now = self.clock()
        if now - self.last < ECHO_S:
            return False
        self.last = now
        return True


_requests = Requests()


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """In the block, SIGTERM and Ctrl-C raise KeyboardInterrupt."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        if _requests.is_new():
            raise KeyboardInterrupt

    with _handled(interrupt):
        yield


@contextlib.contextmanager
def further_requests() -> Iterator[Callable[[], bool]]:
    """In the block, SIGTERM and Ctrl-C raise nothing. The function says whether one has come."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = came or _requests.is_new()

    with _handled(note):
        yield lambda: came


@contextlib.contextmanager
def _handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A signal that is ignored, as by a background job of a shell, stays ignored. In a thread other than the main one,
    which gets no signals, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    for number in NUMBERS:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, one in before.items():
            signal.signal(number, one)


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
