"""Measure how fast the processor is during a benchmark. A rented core is half of a physical one: other customers' work
on the other half can slow it down by up to 60 %, from one minute to the next.
"""

from __future__ import annotations

import statistics
import threading
import time
from types import TracebackType

TURNS = 60_000
"""Of a loop that takes about 5 ms."""
PAUSE_S = 0.25


class Pace:
    """A context around what is measured. Takes 2 % of a core."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Pace:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ends.set()
        self._thread.join()

    @property
    def loop_ms(self) -> float:
        """Mean processor milliseconds of the same loop: the more, the slower. Only after the end of the context."""
        return round(statistics.mean(self._samples), 3)

    def _sample(self) -> None:
        while True:
            began = time.thread_time()  # waiting for a core does not count
            total = 0
            for number in range(TURNS):
                total += number * number % 7
            self._samples.append(1000 * (time.thread_time() - began))
            if self._ends.wait(PAUSE_S):
                return
