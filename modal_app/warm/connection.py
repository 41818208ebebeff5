"""A command that is connected to the preloaded trainer, as that sees it."""

from __future__ import annotations

import json
import select
import socket
from dataclasses import dataclass
from typing import Any

from modal_app.warm.context import Context

AT_ONCE = 1 << 16
"""Bytes."""


@dataclass(slots=True)
class Command:
    socket: socket.socket
    context: Context | None = None
    unread: bytes = b""
    gone: bool = False

    def tell(self, **event: Any) -> None:
        """A command that does not listen, or has gone, is told no more; its children are still looked after."""
        if self.gone:
            return
        try:
            self.socket.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            self.gone = True

    def requests(self) -> list[bytes]:
        """Whole lines that have come, also the last words of one that has gone since."""
        try:
            while block := self.socket.recv(AT_ONCE):
                self.unread += block
            self.gone = True
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True
        *lines, self.unread = self.unread.split(b"\n")
        return lines

    def has_hung_up(self) -> bool:
        """Looked at without reading."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))
