"""The connections of clients and containers, so that all can be dropped at once and refused for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakSet

from grpclib.protocol import H2Protocol
from grpclib.server import Server

if TYPE_CHECKING:
    from tests.modal_server.dispatch import Service


@dataclass(slots=True)
class Lines:
    """The connections of one server: to the client's port and to the sockets of all containers."""

    refused: bool = False
    open: WeakSet[H2Protocol] = field(default_factory=WeakSet)

    def drop(self) -> None:
        """Abort all connections, without answering open requests, and refuse new ones."""
        self.refused = True
        for protocol in list(self.open):
            # Either is absent before a connection is made, and after it was closed.
            transport = getattr(getattr(protocol, "connection", None), "_transport", None)
            if transport is not None:
                transport.abort()

    def accept(self) -> None:
        """Accept new connections again."""
        self.refused = False


class LineServer(Server):
    """Adds its connections to the lines, and accepts none while these are refused."""

    def __init__(self, services: Collection[Service], lines: Lines) -> None:
        super().__init__(services)
        self._lines = lines

    def _protocol_factory(self) -> H2Protocol:
        protocol: H2Protocol = _Refusal() if self._lines.refused else super()._protocol_factory()  # type: ignore[assignment]
        if isinstance(protocol, H2Protocol):
            self._lines.open.add(protocol)
        return protocol


class _Refusal(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
