"""A call of a function that its caller does not wait for if it takes long. Standard library."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

LONGEST_S = 3.0
"""Longer than an answer of Modal usually takes."""


class Aside:
    """Calls a function on a thread of its own, one call at a time. The function may never return: Modal's client waits
    for an answer as long as the connection lives, and a command that asks a GPU's driver hangs with the driver."""

    def __init__(self, function: Callable[[], None], longest_s: float = LONGEST_S) -> None:
        self._function, self._longest_s = function, longest_s
        self._call: Future[None] | None = None

    def __call__(self) -> None:
        """Call the function, unless its last call has not returned, and wait a moment for it. Raises what the function
        has raised; after a moment, the next call raises it."""
        if self._call is None:
            self._call = Future()
            threading.Thread(target=_call, args=(self._function, self._call), daemon=True).start()
        wait([self._call], self._longest_s)
        if self._call.done():
            call, self._call = self._call, None
            call.result()


def _call(function: Callable[[], None], result: Future[None]) -> None:
    try:
        function()
    except BaseException as error:  # the boundary of this thread
        result.set_exception(error)
    else:
        result.set_result(None)
