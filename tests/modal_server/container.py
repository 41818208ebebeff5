"""One container: a real entrypoint process behind its own socket, from its first file to its last signal."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import time
from collections.abc import Coroutine, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modal_proto import api_pb2

from tests.modal_server import rootfs
from tests.modal_server.calls import Input, InputState
from tests.modal_server.interpreter import inspect_interpreter
from tests.modal_server.layers import Source, shared_layers
from tests.modal_server.lines import LineServer
from tests.modal_server.logs import STDERR, STDOUT, SYSTEM
from tests.modal_server.open_files import first_open
from tests.modal_server.settings import LAUNCH
from tests.modal_server.signals import Signal
from tests.modal_server.template import Fork, start_fork
from tests.modal_server.volumes import Checkout
from tests.modal_server.world import World, new_id

if TYPE_CHECKING:
    from tests.modal_server.dispatch import Service
    from tests.modal_server.pool import Pool


class ContainerState(StrEnum):
    """Ready once it has requested an input."""

    STARTING = "starting"
    READY = "ready"
    ENDED = "ended"


class Container:
    """Owned by a pool, which gives it inputs and is called at its end."""

    def __init__(self, world: World, pool: Pool, function: api_pb2.Function) -> None:
        self.id = new_id("ta")
        self.pool = pool
        self.function = function
        self.state = ContainerState.STARTING
        self.ready_at = 0.0
        self.inputs: dict[str, Input] = {}
        self.checkouts: dict[str, Checkout] = {}
        self.created_at = time.time()
        self.ended_at = 0.0
        self.exit_code: int | None = None
        self.stopping = False
        self.preempted = False
        self.start_failure: api_pb2.GenericResult | None = None
        self.cancellations: list[str] = []
        self.cancelled = Signal()
        self._world = world
        self._folder = world.folder / "t" / self.id[3:11]
        self._sources: dict[str, Source] = {}
        self._process: asyncio.subprocess.Process | Fork | None = None
        self._latest: Input | None = None
        self._ladders: set[asyncio.Task[None]] = set()

    @property
    def gpu(self) -> str:
        """As users write it: "", "H100" or "H100:2"."""
        return gpu_text(self.function.resources.gpu_config)

    async def run(self, service: Service, arguments: api_pb2.ContainerArguments) -> None:
        """Start, serve and wait for the end. Never raises for what the container does."""
        server = LineServer([service], self._world.lines)
        try:
            spec = await self._prepare(arguments)
            await server.start(path=str(self._folder / "private" / "server"))
            await self._start(spec)
        except (OSError, ValueError) as error:
            self._say(f"The container could not start: {error}\n")
        else:
            await self._wait()
            server.close()
        self.state = ContainerState.ENDED
        self.ended_at = time.time()
        for ladder in self._ladders:
            ladder.cancel()
        await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        if self._world.settings.mounts:
            shared_layers().keep_bytecode(self._sources, self._folder / "upper")
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _prepare(self, arguments: api_pb2.ContainerArguments) -> Path:
        world, function = self._world, self.function
        for part in ("private", "upper", "work", "root"):
            (self._folder / part).mkdir(parents=True)
        if function.volume_mounts and not world.settings.mounts:
            raise ValueError("Volumes inside of containers need private mounts, which need root")
        mounts: dict[str, tuple[Checkout, api_pb2.VolumeMount]] = {}
        for mount in function.volume_mounts:
            volume = world.volumes[mount.volume_id]
            place = self._folder / "volumes" / volume.id
            checkout = await volume.checkout(place, read_only=mount.read_only)
            self.checkouts[volume.id] = checkout
            mounts[volume.id] = (checkout, mount)
        self._sources = rootfs.sources(world, function.mount_ids)
        rootfs.place_sources(self._sources, self._folder / "upper", mounts=world.settings.mounts)
        (self._folder / "private" / "arguments").write_bytes(arguments.SerializeToString())
        image = world.images.get(function.image_id)
        variables = rootfs.environment(world, function, image, self._folder, self.id, arguments.function_id)
        return rootfs.write_spec(world, self._folder, variables, function, image, self._sources, mounts)

    async def _start(self, spec: Path) -> None:
        settings = self._world.settings
        if settings.mounts and "LD_PRELOAD" not in settings.container_environment:  # a fork would not load it
            self._process = await start_fork(inspect_interpreter(settings.container_python), spec)
        else:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(LAUNCH), str(spec), env={}, stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, limit=1 << 24,
            )  # fmt: skip
        if self.stopping:
            self.kill()
        self._climb(self._expect_start())

    async def _expect_start(self) -> None:
        await asyncio.sleep(self.function.startup_timeout_secs or self.function.timeout_secs or 300)
        if self.state == ContainerState.STARTING:
            self._say("The container was not ready within its startup timeout\n")
            self.kill()

    async def _wait(self) -> None:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        assert process.stderr is not None
        readers = [
            asyncio.create_task(self._read(process.stdout, STDOUT)),
            asyncio.create_task(self._read(process.stderr, STDERR)),
        ]
        code = await process.wait()
        self.exit_code = code if code >= 0 else 128 - code
        # Without a process namespace, a grandchild may keep the pipe open forever.
        await asyncio.wait(readers, timeout=1.0)
        for reader in readers:
            reader.cancel()

    async def _read(self, stream: asyncio.StreamReader, descriptor: int) -> None:
        while chunk := await stream.readline():
            self._say(chunk.decode(errors="replace"), descriptor)

    def _say(self, text: str, descriptor: int = SYSTEM) -> None:
        call = self._latest.call if self._latest else None
        self._world.logs.add(
            text,
            descriptor,
            app_id=self.pool.record.app_id,
            function_id=(self.pool.record.base or self.pool.record).id,
            task_id=self.id,
            call_id=call.id if call else "",
            input_id=self._latest.id if self._latest else "",
        )

    def accept(self, one: Input) -> None:
        """The entrypoint is about to get this input."""
        one.state = InputState.RUNNING
        one.container = self
        one.started_at = time.time()
        one.tasks.append(self.id)
        self.inputs[one.id] = one
        self._latest = one
        if self.function.timeout_secs:
            self._climb(self._time_out(one, one.attempt))

    async def _time_out(self, one: Input, attempt: int) -> None:
        await asyncio.sleep(self.function.timeout_secs)
        if self._holds(one, attempt):
            one.timed_out = True
            await self._end(one, attempt)

    def cancel(self, one: Input, *, terminate: bool) -> None:
        """Make user code end this input: by cancellation first, or by ending the container right away."""
        if terminate:
            self.interrupt()
        else:
            self._climb(self._end(one, one.attempt))

    async def _end(self, one: Input, attempt: int) -> None:
        """Modal's ladder: InputCancellation, then SIGINT, then SIGKILL."""
        grace_s = self._world.settings.grace_s
        self.cancellations.append(one.id)
        self.cancelled.set()
        await asyncio.sleep(grace_s)
        if self._holds(one, attempt):
            self._signal(signal.SIGINT)
            await asyncio.sleep(grace_s)
            if self._holds(one, attempt):
                self.kill()

    def _holds(self, one: Input, attempt: int) -> bool:
        """Still the same delivery: a retry of an input may come to the container that it failed in."""
        return self.inputs.get(one.id) is one and one.attempt == attempt

    def interrupt(self, *, preempted: bool = False) -> None:
        """SIGINT, and SIGKILL after the grace time."""
        self.stopping = True
        self.preempted = self.preempted or preempted
        self._signal(signal.SIGINT)
        self._climb(self._kill_later())

    async def _kill_later(self) -> None:
        await asyncio.sleep(self._world.settings.grace_s)
        self.kill()

    def kill(self) -> None:
        """Kill everything in it, at once."""
        self.stopping = True
        self._signal(signal.SIGTERM if self._world.settings.mounts else signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    def _climb(self, ladder: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(ladder)
        self._ladders.add(task)
        task.add_done_callback(self._ladders.discard)

    def open_file(self, checkout: Checkout) -> str | None:
        """What prevents a reload of this Volume, if anything."""
        if self._process is None:
            return None
        return first_open(self._process.pid, checkout.path)


def gpu_text(config: api_pb2.GPUConfig) -> str:
    """The GPU as a user would have written it."""
    if not config.count:
        return ""
    return config.gpu_type if config.count == 1 else f"{config.gpu_type}:{config.count}"


def peak_gpus(spans: Mapping[str, tuple[float, float, int]]) -> int:
    """The most GPUs in use at one moment, from (start, end, count) spans."""
    moments = sorted(
        moment for start, end, count in spans.values() for moment in ((start, count), (end or float("inf"), -count))
    )
    held = peak = 0
    for _, count in moments:
        held += count
        peak = max(peak, held)
    return peak
