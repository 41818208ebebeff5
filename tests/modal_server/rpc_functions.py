"""Functions: defined at deployment, found by name and version, bound to options, called, answered, cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.calls import FunctionCall, Input, InputState, Result
from tests.modal_server.scheduler import Scheduler
from tests.modal_server.world import Definition, FunctionRecord, World, environment_of, found, missing, new_id

_POLL_S = 50.0
_MAX_OUTPUTS = 49


class FunctionResponder:
    """Answers the Function calls that clients make, which containers may make, too."""

    def __init__(self, world: World, scheduler: Scheduler) -> None:
        self._world = world
        self._scheduler = scheduler

    async def FunctionPrecreate(self, request: api_pb2.FunctionPrecreateRequest) -> api_pb2.FunctionPrecreateResponse:
        record = self._world.functions.get(request.existing_function_id)
        if record is None:
            function_id = new_id("fu")
            metadata = api_pb2.FunctionHandleMetadata(base_function_id=function_id)
            record = FunctionRecord(function_id, request.app_id, request.function_name, metadata)
            self._world.functions[record.id] = record
        _describe(record, request)
        return api_pb2.FunctionPrecreateResponse(function_id=record.id, handle_metadata=record.metadata)

    async def FunctionCreate(self, request: api_pb2.FunctionCreateRequest) -> api_pb2.FunctionCreateResponse:
        record = self._world.function(request.existing_function_id)
        data = request.function_data
        if not data.ranked_functions:
            data = api_pb2.FunctionData(function_name=request.function.function_name)
            data.ranked_functions.add(rank=0, function=request.function)
        definition = Definition(new_id("de"), data)
        self._world.definitions[definition.id] = definition
        _describe(record, data.ranked_functions[0].function)
        record.metadata.definition_id = definition.id
        if data.ranked_functions[0].function.webhook_config.type:
            record.metadata.web_url = f"{self._world.web_url}/{record.id}"
        return api_pb2.FunctionCreateResponse(
            function_id=record.id,
            function=data.ranked_functions[0].function,
            handle_metadata=record.metadata,
            function_data=data,
        )

    async def FunctionGet(self, request: api_pb2.FunctionGetRequest) -> api_pb2.FunctionGetResponse:
        key = (environment_of(request.environment_name), request.app_name)
        if key not in self._world.deployed:
            raise missing(f"App {request.app_name!r}")
        app = self._world.app(self._world.deployed[key])
        if request.app_version > len(app.versions):
            raise missing(f"Version {request.app_version} of app {request.app_name!r}")
        function_ids = app.function_ids
        if request.app_version:
            function_ids = {tag: one for tag, (one, _) in app.versions[request.app_version - 1].items()}
        if request.object_tag not in function_ids:
            raise missing(f"Function {request.object_tag!r} in app {request.app_name!r}")
        record = self._world.function(function_ids[request.object_tag])
        if request.app_version:
            definition_id = app.versions[request.app_version - 1][request.object_tag][1]
            record = self._variant(record, self._world.definitions[definition_id], record.options)
        return api_pb2.FunctionGetResponse(
            function_id=record.id, handle_metadata=record.metadata, function=record.current.data
        )

    async def FunctionGetById(self, request: api_pb2.FunctionGetByIdRequest) -> api_pb2.FunctionGetByIdResponse:
        record = self._world.function(request.function_id)
        return api_pb2.FunctionGetByIdResponse(function=record.current.data, handle_metadata=record.metadata)

    async def FunctionBindParams(
        self, request: api_pb2.FunctionBindParamsRequest
    ) -> api_pb2.FunctionBindParamsResponse:
        record = self._world.function(request.function_id)
        variant = self._variant(record, record.pinned, request.function_options)
        return api_pb2.FunctionBindParamsResponse(bound_function_id=variant.id, handle_metadata=variant.metadata)

    def _variant(
        self, record: FunctionRecord, pinned: Definition | None, options: api_pb2.FunctionOptions
    ) -> FunctionRecord:
        """The same options on the same version are the same variant, and share one pool."""
        base = record.base or record
        for other in self._world.functions.values():
            if other.base is base and other.pinned is pinned and other.options == options:
                return other
        metadata = api_pb2.FunctionHandleMetadata()
        metadata.CopyFrom(base.metadata)
        metadata.base_function_id = base.id
        if pinned:
            metadata.definition_id = pinned.id
        variant = FunctionRecord(
            new_id("fu"), base.app_id, base.name, metadata, base=base, pinned=pinned, options=options
        )
        self._world.functions[variant.id] = variant
        return variant

    async def FunctionGetCurrentStats(self, request: api_pb2.FunctionGetCurrentStatsRequest) -> api_pb2.FunctionStats:
        pool = self._world.function(request.function_id).pool
        if pool is None:
            return api_pb2.FunctionStats()
        running = sum(len(container.inputs) for container in pool.containers)
        return api_pb2.FunctionStats(
            backlog=len(pool.queue), num_total_tasks=len(pool.containers), num_running_inputs=running
        )

    async def FunctionMap(self, request: api_pb2.FunctionMapRequest) -> api_pb2.FunctionMapResponse:
        record = self._world.function(request.function_id)
        if self._world.app(record.app_id).stopped:
            raise GRPCError(Status.FAILED_PRECONDITION, f"App {record.app_id} is stopped")
        pool = self._scheduler.pool(record)
        call = FunctionCall(new_id("fc"), record, request.function_call_invocation_type, request.parent_input_id, pool)
        self._world.calls[call.id] = call
        return api_pb2.FunctionMapResponse(
            function_call_id=call.id,
            function_call_jwt=call.id,
            pipelined_inputs=self._add(call, request.pipelined_inputs),
            retry_policy=pool.functions[0].retry_policy,
            sync_client_retries_enabled=True,
            max_inputs_outstanding=1000,
        )

    async def FunctionPutInputs(self, request: api_pb2.FunctionPutInputsRequest) -> api_pb2.FunctionPutInputsResponse:
        call = self._world.call(request.function_call_id)
        return api_pb2.FunctionPutInputsResponse(inputs=self._add(call, request.inputs))

    async def FunctionFinishInputs(self, request: object) -> None:
        return None

    async def FunctionRetryInputs(
        self, request: api_pb2.FunctionRetryInputsRequest
    ) -> api_pb2.FunctionRetryInputsResponse:
        """The client itself retries calls that it waits for."""
        for item in request.inputs:
            one = found(self._world.inputs, item.input_jwt, "Input")
            one.restart()
            self._scheduler.put(one)
        return api_pb2.FunctionRetryInputsResponse(input_jwts=[item.input_jwt for item in request.inputs])

    async def FunctionGetOutputs(
        self, request: api_pb2.FunctionGetOutputsRequest
    ) -> api_pb2.FunctionGetOutputsResponse:
        call = self._world.call(request.function_call_id)
        outputs = call.outputs(request)
        if not outputs and not call.expired and call.unfinished:
            await call.changed.wait(min(request.timeout, _POLL_S))
            outputs = call.outputs(request)
        outputs = outputs[: request.max_values or _MAX_OUTPUTS]
        return api_pb2.FunctionGetOutputsResponse(
            outputs=[one.item() for one in outputs],
            idxs=[one.idx for one in outputs],
            last_entry_id=f"{outputs[-1].entry}-0" if outputs else request.last_entry_id,
            num_unfinished_inputs=0 if call.expired else call.unfinished,
        )

    async def FunctionCallGetDataOut(
        self, request: api_pb2.FunctionCallGetDataRequest
    ) -> AsyncIterator[api_pb2.DataChunk]:
        """What a generator yielded, until its call ends."""
        call = self._world.call(request.function_call_id)
        sent = 0
        while True:
            for chunk in call.chunks[sent:]:
                sent += 1
                if chunk.index > request.last_index:
                    yield chunk
            if not call.unfinished:
                return
            if sent == len(call.chunks):
                await call.changed.wait(_POLL_S)

    async def FunctionCallCancel(self, request: api_pb2.FunctionCallCancelRequest) -> None:
        for one in self._world.call(request.function_call_id).inputs:
            if one.state == InputState.DONE:
                continue
            container = one.container
            if container is None:
                self._scheduler.pool(one.call.function).forget(one)
            else:
                container.cancel(one, terminate=request.terminate_containers)
            one.end(Result.GENERIC_STATUS_TERMINATED)

    async def FunctionCallFromId(
        self, request: api_pb2.FunctionCallFromIdRequest
    ) -> api_pb2.FunctionCallFromIdResponse:
        call = self._world.call(request.function_call_id)
        function = call.function.base or call.function
        metadata = api_pb2.FunctionCallHandleMetadata(app_id=function.app_id, function_id=function.id)
        return api_pb2.FunctionCallFromIdResponse(
            function_call_id=call.id, num_inputs=len(call.inputs), metadata=metadata
        )

    async def FunctionCallGetInfo(
        self, request: api_pb2.FunctionCallGetInfoRequest
    ) -> api_pb2.FunctionCallGetInfoResponse:
        call = self._world.call(request.function_call_id)

        def total(*statuses: int) -> api_pb2.InputCategoryInfo:
            outputs = [one.output for one in call.inputs if one.output]
            return api_pb2.InputCategoryInfo(total=sum(output.result.status in statuses for output in outputs))

        info = api_pb2.FunctionCallInfo(
            function_call_id=call.id,
            created_at=call.created_at,
            total_inputs=len(call.inputs),
            pending_inputs=api_pb2.InputCategoryInfo(total=call.unfinished),
            succeeded_inputs=total(Result.GENERIC_STATUS_SUCCESS),
            timeout_inputs=total(Result.GENERIC_STATUS_TIMEOUT),
            cancelled_inputs=total(Result.GENERIC_STATUS_TERMINATED),
            failed_inputs=total(
                Result.GENERIC_STATUS_FAILURE,
                Result.GENERIC_STATUS_INIT_FAILURE,
                Result.GENERIC_STATUS_INTERNAL_FAILURE,
            ),
        )
        return api_pb2.FunctionCallGetInfoResponse(info=info)

    def _add(
        self, call: FunctionCall, items: Iterable[api_pb2.FunctionPutInputsItem]
    ) -> list[api_pb2.FunctionPutInputsResponseItem]:
        added = []
        for item in items:
            one = Input(new_id("in"), call, item.idx, item.input)
            call.inputs.append(one)
            self._world.inputs[one.id] = one
            self._scheduler.put(one)
            added.append(api_pb2.FunctionPutInputsResponseItem(idx=one.idx, input_id=one.id, input_jwt=one.id))
        return added


def _describe(record: FunctionRecord, source: api_pb2.FunctionPrecreateRequest | api_pb2.Function) -> None:
    """What the client needs to know of a function for which it has a handle."""
    metadata = record.metadata
    metadata.function_name = source.function_name
    metadata.function_type = source.function_type
    metadata.app_id = record.app_id
    metadata.function_schema.CopyFrom(source.function_schema)
    del metadata.supported_input_formats[:], metadata.supported_output_formats[:]
    metadata.supported_input_formats.extend(source.supported_input_formats)
    metadata.supported_output_formats.extend(source.supported_output_formats)
