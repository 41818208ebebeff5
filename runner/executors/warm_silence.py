"""Whether a preloaded trainer still answers: a command does not wait for one that is suspended, or that hangs."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass

from runner.executors.warm_server import TrainerConnection, process_state

SUSPENDED_S = 0.5
"""How long a trainer must be suspended (SIGSTOP) before a command gives up on it."""
ANSWER_S = 60.0
"""How long a trainer that has imported everything may take to answer a request. A fork takes milliseconds."""
IMPORT_S = 300.0
"""How long a trainer may be silent while it imports. On a loaded machine with a cold disk, that takes minutes."""


@dataclass(slots=True)
class Silence:
    """The time in which one trainer has not answered one command."""

    reached: TrainerConnection
    suspended_s: float = SUSPENDED_S
    answer_s: float = ANSWER_S
    import_s: float = IMPORT_S
    _since: float = 0.0
    _ready: bool = False
    _suspended_since: float | None = None
    _pid: int | None = None

    def __post_init__(self) -> None:
        self._since = time.monotonic()

    def end(self, *, ready: bool = False) -> None:
        """A request was sent, or an event has arrived."""
        self._since, self._ready = time.monotonic(), self._ready or ready

    def why_to_give_up(self, *, answer_is_due: bool) -> str:
        """Why no answer can be expected; empty while the trainer may still answer."""
        if self._is_suspended():
            return f"the preloaded trainer{self._named()} is suspended; `axosweep warm stop` ends it"
        longest = self.answer_s if self._ready else self.import_s
        if answer_is_due and time.monotonic() - self._since > longest:
            return (
                f"the preloaded trainer{self._named()} has not answered for {longest:.0f} s; "
                "`axosweep warm stop` ends it"
            )
        return ""

    def _is_suspended(self) -> bool:
        pid = self._find_pid()
        if pid is None or process_state(pid) != "T":
            self._suspended_since = None
            return False
        if self._suspended_since is None:
            self._suspended_since = time.monotonic()
        return time.monotonic() - self._suspended_since >= self.suspended_s

    def _find_pid(self) -> int | None:
        """None until the trainer has written its note."""
        if self._pid is None and self.reached.process is not None:
            self._pid = self.reached.process.pid
        if self._pid is None:
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                self._pid = int(json.loads(self.reached.address.note.read_text(encoding="utf-8"))["owner"]["pid"])
        return self._pid

    def _named(self) -> str:
        return "" if self._pid is None else f" (process {self._pid})"
