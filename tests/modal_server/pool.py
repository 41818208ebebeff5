"""Inputs of one function, variant and version -> containers, as many as it allows, and what happens when these end."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING

from modal_proto import api_pb2

from tests.modal_server.calls import Input, InputState, Result
from tests.modal_server.container import Container, ContainerState, gpu_text
from tests.modal_server.signals import Signal
from tests.modal_server.world import Definition, FunctionRecord, World

if TYPE_CHECKING:
    from tests.modal_server.scheduler import Scheduler


class Pool:
    """Its containers run `functions[n]`, the first one whose GPU is available."""

    def __init__(self, world: World, scheduler: Scheduler, record: FunctionRecord, definition: Definition) -> None:
        self.record = record
        self.definition = definition
        self.functions = tuple(with_options(function, record.options) for function in definition.ranked)
        self.queue: deque[Input] = deque()
        self.containers: set[Container] = set()
        self.draining = False
        self._failed_starts = 0
        self._arrived = Signal()
        self._world = world
        self._scheduler = scheduler

    @property
    def limit(self) -> int:
        """max_containers; without it, no limit of its own."""
        function = self.functions[0]
        return function.autoscaler_settings.max_containers or function.concurrency_limit or 1 << 30

    @property
    def gpu(self) -> str:
        """Its first choice."""
        return gpu_text(self.functions[0].resources.gpu_config)

    @property
    def wanted(self) -> int:
        """How many containers should be started for the waiting inputs."""
        width = max(1, self.functions[0].max_concurrent_inputs)
        coming = sum(
            width - len(container.inputs)
            for container in self.containers
            if not container.stopping and container.state != ContainerState.ENDED
        )
        missing = -(-(len(self.queue) - coming) // width)
        return max(0, min(missing, self.limit - len(self.containers)))

    def choose(self) -> api_pb2.Function:
        """The best-ranked GPU that is not full; the last one when all are."""
        for function in self.functions:
            if gpu_text(function.resources.gpu_config) not in self._world.full_gpus:
                return function
        return self.functions[-1]

    def put(self, one: Input, *, first: bool = False) -> None:
        if first:
            self.queue.appendleft(one)
        else:
            self.queue.append(one)
        self._arrived.set()
        self._scheduler.schedule()

    async def next_input(self, container: Container) -> Input | None:
        """An input for a container that requests one, or None if it should end."""
        if container.state == ContainerState.STARTING:
            container.state = ContainerState.READY
            container.ready_at = time.time()
            self._failed_starts = 0
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._idle_s()
        while not (self.draining or container.stopping):
            if self.queue:
                one = self.queue.popleft()
                container.accept(one)
                return one
            if not await self._arrived.wait(deadline - loop.time()) and not container.inputs:
                break
            deadline = max(deadline, loop.time() + 0.1)
        container.stopping = True
        return None

    def retire_idle(self) -> bool:
        """Request one idle container to end; False if there is none."""
        for container in self.containers:
            if container.state == ContainerState.READY and not container.inputs and not container.stopping:
                container.stopping = True
                self._arrived.set()
                return True
        return False

    def drain(self) -> list[Input]:
        """Start nothing any more, and let running inputs finish; returns the waiting ones."""
        self.draining = True
        self._arrived.set()
        waiting = list(self.queue)
        self.queue.clear()
        return waiting

    def forget(self, one: Input) -> None:
        """It was cancelled while it waited."""
        if one in self.queue:
            self.queue.remove(one)

    def answer(self, container: Container, output: api_pb2.FunctionPutOutputsItem) -> None:
        """An output from a container, unless it comes too late."""
        one = container.inputs.pop(output.input_id, None)
        if container.function.single_use_containers:
            container.stopping = True
            self._arrived.set()
            self._scheduler.schedule()
        if one is None or one.state == InputState.DONE or output.retry_count < one.attempt:
            return
        if output.result.status == Result.GENERIC_STATUS_TERMINATED and one.timed_out:
            output.result.CopyFrom(self._timeout())
        if output.result.status in (Result.GENERIC_STATUS_FAILURE, Result.GENERIC_STATUS_TIMEOUT):
            self._fail(one, output)
        else:
            one.finish(output)

    def _fail(self, one: Input, output: api_pb2.FunctionPutOutputsItem) -> None:
        policy = self.functions[0].retry_policy
        if not one.call.asynchronous or one.failures >= policy.retries:
            one.finish(output)
            return
        delay_ms = min(policy.initial_delay_ms * policy.backoff_coefficient**one.failures, policy.max_delay_ms)
        one.failures += 1
        one.restart()
        self._scheduler.put_later(one, delay_ms / 1000 * self._world.settings.retry_delay_factor)

    def ended(self, container: Container) -> None:
        """A container has ended: its inputs start again, or end with it."""
        self.containers.discard(container)
        started = bool(container.ready_at) and container.start_failure is None
        for one in list(container.inputs.values()):
            container.inputs.pop(one.id)
            if one.state == InputState.DONE:
                continue
            if one.timed_out:
                output = api_pb2.FunctionPutOutputsItem(input_id=one.id, result=self._timeout())
                self._fail(one, output)
                continue
            one.crashes += not container.preempted
            if one.crashes > self._world.settings.max_crashes:
                one.end(Result.GENERIC_STATUS_INTERNAL_FAILURE, "Its containers died again and again")
                continue
            one.restart()
            self._scheduler.put(one, first=True)
        if not started and not container.preempted:
            self._start_failed(container)
        self._scheduler.schedule()

    def _start_failed(self, container: Container) -> None:
        self._failed_starts += 1
        if self._failed_starts < self._world.settings.start_attempts:
            return
        self._failed_starts = 0
        text = f"The container ended with code {container.exit_code} before its first input; see its logs"
        while self.queue:
            self.queue.popleft().end(Result.GENERIC_STATUS_INIT_FAILURE, text, result=container.start_failure)

    def _idle_s(self) -> float:
        function = self.functions[0]
        return float(
            function.autoscaler_settings.scaledown_window
            or function.task_idle_timeout_secs
            or self._world.settings.idle_s
        )

    def _timeout(self) -> Result:
        text = f"Task's current input hit its timeout of {self.functions[0].timeout_secs}s"
        return Result(status=Result.GENERIC_STATUS_TIMEOUT, exception=text)


def with_options(function: api_pb2.Function, options: api_pb2.FunctionOptions) -> api_pb2.Function:
    """A copy of the function with the values that the options name replaced."""
    changed = api_pb2.Function()
    changed.CopyFrom(function)
    if options.HasField("resources"):
        changed.resources.MergeFrom(options.resources)
    if options.HasField("retry_policy"):
        changed.retry_policy.CopyFrom(options.retry_policy)
    if options.HasField("concurrency_limit"):
        changed.concurrency_limit = options.concurrency_limit
        changed.autoscaler_settings.max_containers = options.concurrency_limit
    if options.HasField("timeout_secs"):
        changed.timeout_secs = options.timeout_secs
    if options.HasField("task_idle_timeout_secs"):
        changed.task_idle_timeout_secs = options.task_idle_timeout_secs
        changed.autoscaler_settings.scaledown_window = options.task_idle_timeout_secs
    if options.HasField("max_concurrent_inputs"):
        changed.max_concurrent_inputs = options.max_concurrent_inputs
    if options.HasField("scheduler_placement"):
        changed.scheduler_placement.CopyFrom(options.scheduler_placement)
    if options.replace_volume_mounts:
        del changed.volume_mounts[:]
        changed.volume_mounts.extend(options.volume_mounts)
    if options.replace_secret_ids:
        del changed.secret_ids[:]
        changed.secret_ids.extend(options.secret_ids)
    return changed
