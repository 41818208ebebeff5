"""gRPC call -> the method of that name on one of the responders, recorded; UNIMPLEMENTED when there is none."""

from __future__ import annotations

import inspect
import sys
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import grpclib.server
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from grpclib.const import Handler
from modal_proto.api_grpc import ModalClientBase

from tests.modal_server.record import CLIENT, Fault, Record
from tests.modal_server.settings import Settings

_REMEMBERED = 200


class Service(Protocol):
    """The services that grpclib serves."""

    def __mapping__(self) -> Mapping[str, Handler]: ...


def _name_only(name: str) -> Any:
    async def stub(self: ModalClientBase, stream: object) -> None:
        raise AssertionError(name)

    return stub


# Modal's abstract base knows the paths, the cardinalities and the message types of all its calls.
_Everything: Any = type(
    "_Everything", (ModalClientBase,), {name: _name_only(name) for name in ModalClientBase.__abstractmethods__}
)


class Dispatch:
    """One gRPC service. A responder's method takes the request and returns the reply, or yields several."""

    def __init__(
        self,
        responders: Sequence[object],
        record: Record,
        settings: Settings,
        answers: Mapping[str, Message],
        caller: str = CLIENT,
    ) -> None:
        self._responders = responders
        self._record = record
        self._settings = settings
        self._answers = answers
        self._caller = caller
        # The client repeats a call whose answer it did not get, under the same key: it must not take effect twice.
        self._answered: OrderedDict[str, Message] = OrderedDict()

    def __mapping__(self) -> Mapping[str, Handler]:
        handlers: Mapping[str, Handler] = _Everything().__mapping__()
        return {
            path: handler._replace(func=self._bind(path.rpartition("/")[2], handler.reply_type))
            for path, handler in handlers.items()
        }

    def _bind(self, name: str, reply_type: type[Message]) -> Any:
        respond = next((getattr(r, name) for r in self._responders if hasattr(r, name)), None)

        async def handle(stream: grpclib.server.Stream[Any, Any]) -> None:
            request = await stream.recv_message()
            if request is None:
                return
            fault = self._record.add(name, self._caller, request)
            self._authenticate(stream)
            if self._record.unavailable:
                raise GRPCError(Status.UNAVAILABLE, "the test ordered an outage")
            if fault and not fault.after:
                await _carry_out(fault)
            if name in self._answers:
                await stream.send_message(self._answers[name])
                return
            if respond is None:
                raise self._unknown(name)
            if inspect.isasyncgenfunction(respond):
                async for reply in respond(request):
                    await stream.send_message(reply)
                return
            key = str(_metadata(stream).get("x-idempotency-key", ""))
            reply = self._answered.get(key) or await respond(request) or reply_type()
            self._remember(key, reply)
            if fault and fault.after:
                await _carry_out(fault)
            await stream.send_message(reply)

        return handle

    def _remember(self, key: str, reply: Message) -> None:
        if key:
            self._answered[key] = reply
            if len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)

    def _authenticate(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        """Containers send no token: their socket is their identity."""
        if self._caller != CLIENT:
            return
        metadata = _metadata(stream)
        token = (metadata.get("x-modal-token-id"), metadata.get("x-modal-token-secret"))
        if token != self._settings.token:
            raise GRPCError(Status.UNAUTHENTICATED, "Token validation failed")

    def _unknown(self, name: str) -> GRPCError:
        self._record.unknown[name] += 1
        if self._settings.echo_unknown and self._record.unknown[name] == 1:
            print(f"modal_server: {self._caller} called {name}, which this test tool does not answer", file=sys.stderr)
        return GRPCError(Status.UNIMPLEMENTED, f"the local test server does not answer {name}")


def _metadata(stream: grpclib.server.Stream[Any, Any]) -> Mapping[str, object]:
    return stream.metadata or {}


async def _carry_out(fault: Fault) -> None:
    if fault.gate is not None:
        await fault.gate.wait()
    if fault.action is not None:
        fault.action()
    if fault.error is not None:
        raise fault.error
