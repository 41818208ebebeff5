"""HTTP in front of web functions: each request becomes an input of its function, as in Modal's own proxy."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from aiohttp import web
from modal._serialization import deserialize_data_format, serialize_data_format
from modal_proto import api_pb2

from tests.modal_server.calls import FunctionCall, Input
from tests.modal_server.scheduler import Scheduler
from tests.modal_server.world import World, new_id

_ASGI = api_pb2.DATA_FORMAT_ASGI
_POLL_S = 50.0


class WebResponder:
    """The HTTP server, and the call with which a container reads what a client has sent."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self._world = world
        self._scheduler = scheduler
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_route("*", "/{function}/{path:.*}", self._answer)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._world.web_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def FunctionCallGetDataIn(
        self, request: api_pb2.FunctionCallGetDataRequest
    ) -> AsyncIterator[api_pb2.DataChunk]:
        """The request's body, then nothing more until the call has ended."""
        call = self._world.call(request.function_call_id)
        for chunk in call.incoming:
            if chunk.index > request.last_index:
                yield chunk
        while call.unfinished:
            await call.changed.wait(_POLL_S)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        record = self._world.functions.get(request.match_info["function"])
        if record is None or self._world.app(record.app_id).stopped:
            return web.Response(status=404, text="modal-http: invalid function call")
        pool = self._scheduler.pool(record)
        call = FunctionCall(new_id("fc"), record, api_pb2.FUNCTION_CALL_INVOCATION_TYPE_SYNC, "", pool)
        body = {"type": "http.request", "body": await request.read(), "more_body": False}
        call.incoming.append(_chunk(body))
        arguments = serialize_data_format(((_scope(request),), {}), api_pb2.DATA_FORMAT_PICKLE)
        payload = api_pb2.FunctionInput(args=arguments, data_format=api_pb2.DATA_FORMAT_PICKLE)
        one = Input(new_id("in"), call, 0, payload)
        call.inputs.append(one)
        self._world.calls[call.id], self._world.inputs[one.id] = call, one
        self._scheduler.put(one)
        return await _respond(request, call)


async def _respond(request: web.Request, call: FunctionCall) -> web.StreamResponse:
    """The container's output, as it arrives."""
    response = web.StreamResponse(status=502)
    with contextlib.suppress(ConnectionResetError):  # the client has disconnected
        async for message in _messages(call):
            if message["type"] == "http.response.start":
                response = web.StreamResponse(status=message["status"])
                for name, value in message["headers"]:
                    if name.lower() not in (b"content-length", b"transfer-encoding"):
                        response.headers.add(name.decode(), value.decode())
                await response.prepare(request)
            elif message["type"] == "http.response.body":
                await response.write(message.get("body") or b"")
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
    return response


async def _messages(call: FunctionCall) -> AsyncIterator[Mapping[str, Any]]:
    sent = 0
    while True:
        unfinished = call.unfinished  # checked first: data that comes with the end is still read
        for chunk in call.chunks[sent:]:
            sent += 1
            if chunk.data_format == _ASGI:
                yield deserialize_data_format(chunk.data, _ASGI, None)
        if not unfinished:
            return
        if sent == len(call.chunks):
            await call.changed.wait(_POLL_S)


def _scope(request: web.Request) -> dict[str, Any]:
    return {
        "type": "http",
        "method": request.method,
        "path": f"/{request.match_info['path']}",
        "query_string": request.query_string.encode(),
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": (request.remote or "127.0.0.1", 0),
    }


def _chunk(message: Mapping[str, Any]) -> api_pb2.DataChunk:
    return api_pb2.DataChunk(data_format=_ASGI, data=serialize_data_format(message, _ASGI), index=1)
