"""What only containers call: getting inputs, answering them, and their own view of Volumes."""

from __future__ import annotations

import asyncio
import math

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.container import Container
from tests.modal_server.volumes import Checkout
from tests.modal_server.world import World, missing


class ContainerResponder:
    """One per container, behind its own socket: these requests do not name their sender."""

    def __init__(self, world: World, container: Container) -> None:
        self._world = world
        self._container = container

    async def ContainerHello(self, request: object) -> None:
        return None

    async def ContainerHeartbeat(
        self, request: api_pb2.ContainerHeartbeatRequest
    ) -> api_pb2.ContainerHeartbeatResponse:
        container = self._container
        if not container.cancellations:
            await container.cancelled.wait(self._world.settings.heartbeat_hold_s)
        ids, container.cancellations = container.cancellations, []
        if not ids:
            return api_pb2.ContainerHeartbeatResponse()
        return api_pb2.ContainerHeartbeatResponse(cancel_input_event=api_pb2.CancelInputEvent(input_ids=ids))

    async def FunctionGetInputs(self, request: api_pb2.FunctionGetInputsRequest) -> api_pb2.FunctionGetInputsResponse:
        one = await self._container.pool.next_input(self._container)
        if one is None:
            return api_pb2.FunctionGetInputsResponse(inputs=[api_pb2.FunctionGetInputsItem(kill_switch=True)])
        item = api_pb2.FunctionGetInputsItem(
            input_id=one.id,
            input=one.payload,
            function_call_id=one.call.id,
            function_call_invocation_type=one.call.invocation,  # type: ignore[arg-type]
            retry_count=one.attempt,
            function_map_idx=one.idx,
        )
        return api_pb2.FunctionGetInputsResponse(inputs=[item])

    async def FunctionPutOutputs(self, request: api_pb2.FunctionPutOutputsRequest) -> None:
        for output in request.outputs:
            self._container.pool.answer(self._container, output)

    async def FunctionCallPutDataOut(self, request: api_pb2.FunctionCallPutDataRequest) -> None:
        call = self._world.call(request.function_call_id)
        call.chunks.extend(request.data_chunks)
        call.changed.set()

    async def TaskResult(self, request: api_pb2.TaskResultRequest) -> None:
        """The function's module could not be imported, or its set-up failed."""
        self._container.start_failure = request.result

    async def VolumeCommit(self, request: api_pb2.VolumeCommitRequest) -> api_pb2.VolumeCommitResponse:
        """Makes what was written here visible to all others; what others wrote needs a reload to be seen here."""
        checkout, rate = self._checkout(request.volume_id), self._world.settings.commit_bytes_per_s
        if rate < math.inf:
            await asyncio.sleep(await asyncio.to_thread(checkout.uncommitted_bytes) / rate)
        await checkout.commit()
        return api_pb2.VolumeCommitResponse(skip_reload=not self._world.settings.reload_after_commit)

    async def VolumeReload(self, request: api_pb2.VolumeReloadRequest) -> None:
        checkout = self._checkout(request.volume_id)
        if held := await asyncio.to_thread(self._container.open_file, checkout):
            text = f"there are open files preventing the operation ({held!r})"
            raise GRPCError(Status.FAILED_PRECONDITION, text)
        await checkout.reload()

    def _checkout(self, volume_id: str) -> Checkout:
        checkout = self._container.checkouts.get(volume_id)
        if checkout is None:
            raise missing(f"Volume {volume_id} in container {self._container.id}")
        return checkout
