"""Function calls, their inputs, and the only answer that each input gets in the end."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from modal_proto import api_pb2

from tests.modal_server.signals import Signal

if TYPE_CHECKING:
    from tests.modal_server.container import Container
    from tests.modal_server.pool import Pool
    from tests.modal_server.world import FunctionRecord

Result = api_pb2.GenericResult


class InputState(StrEnum):
    """The state of an input."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"


@dataclass(slots=True, eq=False)
class Input:
    """`attempt` rises with every delivery and marks late answers; `failures` counts against the retry policy."""

    id: str
    call: FunctionCall
    idx: int
    payload: api_pb2.FunctionInput
    state: InputState = InputState.PENDING
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    timed_out: bool = False
    container: Container | None = None
    tasks: list[str] = field(default_factory=list)
    started_at: float = 0.0
    output: api_pb2.FunctionPutOutputsItem | None = None
    entry: int = 0

    def restart(self) -> None:
        """Back to waiting, for another attempt; an answer of this one is too late from now on."""
        self.attempt += 1
        self.state = InputState.PENDING
        self.container = None
        self.timed_out = False
        self.output = None

    def finish(self, output: api_pb2.FunctionPutOutputsItem) -> None:
        self.state = InputState.DONE
        self.container = None
        self.output = output
        self.call.entries += 1
        self.entry = self.call.entries
        self.call.changed.set()

    def end(self, status: int, exception: str = "", *, result: Result | None = None) -> None:
        """Finish without an answer from a container."""
        result = result or Result(status=status, exception=exception)  # type: ignore[arg-type]
        self.finish(api_pb2.FunctionPutOutputsItem(input_id=self.id, result=result, output_created_at=time.time()))

    def item(self) -> api_pb2.FunctionGetOutputsItem:
        assert self.output is not None
        return api_pb2.FunctionGetOutputsItem(
            result=self.output.result,
            idx=self.idx,
            input_id=self.id,
            data_format=self.output.data_format,
            task_id=self.tasks[-1] if self.tasks else "",
            input_started_at=self.output.input_started_at,
            output_created_at=self.output.output_created_at,
            retry_count=self.attempt,
        )


@dataclass(slots=True, eq=False)
class FunctionCall:
    """One `.remote`, `.spawn` or `.map`; `pool` is the one that it was made for, before any redeployment."""

    id: str
    function: FunctionRecord
    invocation: int
    parent_input_id: str
    pool: Pool
    created_at: float = field(default_factory=time.time)
    inputs: list[Input] = field(default_factory=list)
    entries: int = 0
    expired: bool = False
    chunks: list[api_pb2.DataChunk] = field(default_factory=list)
    """The output of a generator or a web function."""
    incoming: list[api_pb2.DataChunk] = field(default_factory=list)
    """The input of a web function."""
    changed: Signal = field(default_factory=Signal)

    @property
    def asynchronous(self) -> bool:
        """Spawned: perhaps no client waits, so the server itself retries."""
        return self.invocation == api_pb2.FUNCTION_CALL_INVOCATION_TYPE_ASYNC

    @property
    def unfinished(self) -> int:
        return sum(one.state != InputState.DONE for one in self.inputs)

    def outputs(self, request: api_pb2.FunctionGetOutputsRequest) -> list[Input]:
        """The finished inputs that the request asks for: by index, or all since its cursor."""
        if self.expired:
            return []
        done = [one for one in self.inputs if one.state == InputState.DONE]
        if request.HasField("start_idx"):
            done = [one for one in done if request.start_idx <= one.idx <= request.end_idx]
        elif request.last_entry_id:
            cursor = int(request.last_entry_id.partition("-")[0])
            done = [one for one in done if one.entry > cursor]
        if request.input_jwts:
            done = [one for one in done if one.id in request.input_jwts]
        return sorted(done, key=lambda one: one.entry)
