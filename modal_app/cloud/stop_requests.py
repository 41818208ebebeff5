"""Requests to stop, as the signals that a container gets. Standard library.

Modal sends SIGUSR1 for a cancelled call and at its timeout, which the client's handler raises as InputCancellation. It
sends SIGINT for a preemption, and 30 s after a SIGUSR1 if the call has not ended by then. SIGTERM counts as SIGINT.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType

ENDS_THE_CONTAINER = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def only_the_first() -> Iterator[None]:
    """Let the first request end the block by its exception. While the block handles that, a further request is only
    noted, since it would cut off what the first one gives time for: a checkpoint, its copy, a commit. If it ends the
    container, KeyboardInterrupt is raised at the end."""
    before = {number: signal.getsignal(number) for number in (*ENDS_THE_CONTAINER, signal.SIGUSR1)}
    requests: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        requests.append(number)
        if len(requests) > 1:
            return
        cancel = before[signal.SIGUSR1]
        if number == signal.SIGUSR1 and callable(cancel):
            cancel(number, frame)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    except BaseException:
        if any(number in ENDS_THE_CONTAINER for number in requests[1:]):
            raise KeyboardInterrupt from None
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
