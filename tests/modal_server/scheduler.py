"""Which pool may start a container now, and what each container learns about its app."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from modal_proto import api_pb2

from tests.modal_server.calls import Input, InputState, Result
from tests.modal_server.container import Container, ContainerState
from tests.modal_server.dispatch import Dispatch
from tests.modal_server.pool import Pool
from tests.modal_server.rpc_containers import ContainerResponder
from tests.modal_server.world import FunctionRecord, World


class Scheduler:
    """Pools are served in the order of their oldest input."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._responders: tuple[object, ...] = ()
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    def serve_containers_with(self, responders: tuple[object, ...]) -> None:
        """Containers may call everything that clients may, and the calls of their own."""
        self._responders = responders

    def put(self, one: Input, *, first: bool = False) -> None:
        """Queue an input in the present pool of its function."""
        if one.state == InputState.PENDING:
            self.pool(one.call.function).put(one, first=first)

    def put_later(self, one: Input, delay_s: float) -> None:
        """Queue it when a retry is due, unless it was cancelled meanwhile."""
        asyncio.get_running_loop().call_later(delay_s, lambda: None if self._closed else self.put(one))

    def pool(self, record: FunctionRecord) -> Pool:
        """The pool of the function's present definition."""
        if record.pool is None or record.pool.definition.id != record.current.id:
            old, record.pool = record.pool, Pool(self._world, self, record, record.current)
            for one in old.drain() if old else ():
                record.pool.put(one)
        return record.pool

    def redeployed(self, app_id: str) -> None:
        """Move waiting inputs to the new definitions; running ones finish with the old ones."""
        for record in list(self._world.functions.values()):
            if record.app_id == app_id and record.pool is not None:
                self.pool(record)

    def schedule(self) -> None:
        """Start what is wanted and fits."""
        if self._closed:
            return
        waiting = [pool for pool in self._world.pools() if pool.queue]
        for pool in sorted(waiting, key=lambda pool: pool.queue[0].call.created_at):
            while pool.wanted:
                alive = [one for one in self._world.containers.values() if one.state != ContainerState.ENDED]
                if len(alive) >= self._world.settings.max_containers:
                    self._make_room(pool)
                    return
                self._start(pool)

    def _make_room(self, wanting: Pool) -> None:
        if any(one.stopping and one.state != ContainerState.ENDED for one in self._world.containers.values()):
            return
        for container in list(self._world.containers.values()):
            pool = container.pool
            if pool is not wanting and not pool.queue and pool.retire_idle():
                return

    def _start(self, pool: Pool) -> None:
        container = Container(self._world, pool, pool.choose())
        pool.containers.add(container)
        self._world.containers[container.id] = container
        responders = (ContainerResponder(self._world, container), *self._responders)
        world = self._world
        service = Dispatch(responders, world.record, world.settings, world.answers, caller=container.id)
        self.keep(self._run(container, service))

    async def _run(self, container: Container, service: Dispatch) -> None:
        try:
            await container.run(service, self._arguments(container))
        finally:
            container.state = ContainerState.ENDED
            if not self._closed:
                container.pool.ended(container)

    def keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it in the background; `close` waits for it."""
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def stop_app(self, app_id: str) -> None:
        """End its containers and answer its calls."""
        for record in self._world.functions.values():
            if record.app_id == app_id and record.pool is not None:
                for one in record.pool.drain():
                    one.end(Result.GENERIC_STATUS_TERMINATED)
        for container in self._world.containers.values():
            if container.pool.record.app_id == app_id and container.state != ContainerState.ENDED:
                for one in list(container.inputs.values()):
                    one.end(Result.GENERIC_STATUS_TERMINATED)
                container.interrupt(preempted=True)
        self._world.logs.finish(app_id)

    async def close(self) -> None:
        """Kill all containers and wait until they are gone."""
        self._closed = True
        for container in self._world.containers.values():
            container.preempted = True
            container.kill()
        while self._running:
            await asyncio.wait(self._running)

    def _arguments(self, container: Container) -> api_pb2.ContainerArguments:
        record = container.pool.record
        app = self._world.app(record.app_id)
        return api_pb2.ContainerArguments(
            task_id=container.id,
            function_id=record.id,
            app_id=app.id,
            function_def=container.function,
            environment_name=app.environment,
            app_layout=app_layout(self._world, app.function_ids, container.function),
        )


def app_layout(
    world: World, function_ids: dict[str, str], function: api_pb2.Function | None = None
) -> api_pb2.AppLayout:
    """The app's functions, and everything that the given one depends on."""
    layout = api_pb2.AppLayout(function_ids=function_ids)
    for function_id in function_ids.values():
        record = world.functions[function_id]
        layout.objects.add(object_id=function_id, function_handle_metadata=record.metadata)
    for dependency in function.object_dependencies if function else ():
        volume = world.volumes.get(dependency.object_id)
        mount = world.mounts.get(dependency.object_id)
        if volume is not None:
            layout.objects.add(object_id=dependency.object_id, volume_metadata=volume.metadata())
        elif mount is not None:
            layout.objects.add(object_id=dependency.object_id, mount_handle_metadata=api_pb2.MountHandleMetadata())
        else:
            layout.objects.add(object_id=dependency.object_id)
    return layout
