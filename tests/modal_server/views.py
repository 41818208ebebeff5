"""Snapshots of the server's state for tests to look at."""

from __future__ import annotations

from dataclasses import dataclass

from modal_proto import api_pb2

from tests.modal_server.calls import InputState, Result
from tests.modal_server.world import World


@dataclass(frozen=True, slots=True)
class Task:
    """One container. `gpu` as in "H100:2"; `ended_at` is 0 while it lives; `inputs` are those that it works on."""

    id: str
    function: str
    function_id: str
    state: str
    gpu: str
    gpu_count: int
    exit_code: int | None
    started_at: float
    ended_at: float
    inputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Spawned:
    """One function call, with what its function or its options requested; `max_containers` is 0 without a request.

    `status` is "pending", "running", or how its last input ended, such as "success".

    `tasks` are the containers that got its inputs, in order: one per attempt. `parent_input_id` is set when a container
    made the call.
    """

    id: str
    function: str
    function_id: str
    gpu: str
    reserved: tuple[float, float]
    """Cores, GiB."""
    timeout_s: int
    max_containers: int
    status: str
    tasks: tuple[str, ...]
    parent_input_id: str
    created_at: float


def tasks(world: World) -> list[Task]:
    """Oldest first."""
    return [
        Task(
            id=container.id,
            function=container.pool.record.name,
            function_id=container.pool.record.id,
            state=container.state.value,
            gpu=container.gpu,
            gpu_count=container.function.resources.gpu_config.count,
            exit_code=container.exit_code,
            started_at=container.created_at,
            ended_at=container.ended_at,
            inputs=tuple(container.inputs),
        )
        for container in world.containers.values()
    ]


def spawned(world: World) -> list[Spawned]:
    """Oldest first."""
    return [
        Spawned(
            id=call.id,
            function=call.function.name,
            function_id=call.function.id,
            gpu=call.pool.gpu,
            reserved=_reserved(call.pool.functions[0].resources),
            timeout_s=call.pool.functions[0].timeout_secs,
            max_containers=call.pool.functions[0].autoscaler_settings.max_containers,
            status=_status([one.state for one in call.inputs], [one.output for one in call.inputs]),
            tasks=tuple(task for one in call.inputs for task in one.tasks),
            parent_input_id=call.parent_input_id,
            created_at=call.created_at,
        )
        for call in world.calls.values()
    ]


def function_specs(world: World) -> dict[str, list[api_pb2.Function]]:
    """Function name -> all that was defined under it, newest last."""
    specs: dict[str, list[api_pb2.Function]] = {}
    for definition in world.definitions.values():
        for function in definition.ranked:
            specs.setdefault(function.function_name, []).append(function)
    return specs


def image_layers(world: World, function: str) -> list[str]:
    """The Dockerfile lines of the image of the newest definition under that name, bottom layer first."""

    def lines(image_id: str) -> list[str]:
        image = world.images[image_id]
        below = [line for base in image.request.base_images for line in lines(base.image_id)]
        return below + list(image.request.dockerfile_commands)

    return lines(function_specs(world)[function][-1].image_id)


def log(world: World, call_id: str, function: str) -> str:
    """The text of all lines of a call, or of a function."""
    names = {record.id: record.name for record in world.functions.values()}
    return "".join(
        line.text
        for line in world.logs.lines
        if call_id in ("", line.call_id) and function in ("", names.get(line.function_id))
    )


def _status(states: list[InputState], outputs: list[api_pb2.FunctionPutOutputsItem | None]) -> str:
    for state in (InputState.RUNNING, InputState.PENDING):
        if state in states:
            return state.value
    last = outputs[-1] if outputs else None
    if last is None:
        return InputState.PENDING.value
    return Result.GenericStatus.Name(last.result.status).removeprefix("GENERIC_STATUS_").lower()


def _reserved(resources: api_pb2.Resources) -> tuple[float, float]:
    return resources.milli_cpu / 1000, resources.memory_mb / 1024
