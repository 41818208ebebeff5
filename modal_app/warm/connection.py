"""The preloaded trainer's connection to a command."""

from __future__ import annotations

import json
import select
import socket
from dataclasses import dataclass
from typing import Any

from modal_app.warm.context import Context

AT_ONCE = 1 << 16
"""Bytes that are read at a time."""


@dataclass(slots=True)
class Command:
    socket: socket.socket
    context: Context | None = None
    unread: bytes = b""
    gone: bool = False

    def tell(self, **event: Any) -> None:
        """Send an event. A command that does not read, or has ended, gets no more; its children are still managed."""
        if self.gone:
            return
        try:
            self.socket.sendall(json.dumps(event).encode() + b"\n")
        except OSError:
            self.gone = True

    def requests(self) -> list[bytes]:
        """The complete lines that have arrived, including the last ones of a command that has ended since."""
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
        """Whether the command has closed its end; does not read."""
        poll = select.poll()
        poll.register(self.socket, 0)
        return any(event & select.POLLHUP for _, event in poll.poll(0))
