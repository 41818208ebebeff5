"""The server as a test uses it: it runs in a thread, reports what it saw, and can preempt, kill, fail and lose
things."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

from google.protobuf.message import Message
from grpclib import Status
from modal._serialization import deserialize
from modal_proto import api_pb2

from tests.modal_server import views
from tests.modal_server.blobs import Blobs
from tests.modal_server.container import peak_gpus
from tests.modal_server.dispatch import Dispatch
from tests.modal_server.lines import LineServer
from tests.modal_server.record import CLIENT, Call
from tests.modal_server.rpc_apps import AppResponder
from tests.modal_server.rpc_functions import FunctionResponder
from tests.modal_server.rpc_logs import LogResponder
from tests.modal_server.rpc_storage import StorageResponder
from tests.modal_server.rpc_volumes import VolumeResponder
from tests.modal_server.scheduler import Scheduler
from tests.modal_server.settings import Settings
from tests.modal_server.web import WebResponder
from tests.modal_server.world import ENVIRONMENT, World, found

T = TypeVar("T")


class ModalServer:
    """A context manager. All methods may be called from any thread; what they return are snapshots."""

    def __init__(self, settings: Settings | None = None) -> None:
        for name in ("hpack", "grpclib.server"):  # every header of every call, and every call that a client abandoned
            logging.getLogger(name).setLevel(logging.WARNING)
        self.settings = settings or Settings()
        self.url = ""
        # Not pytest's folder: the path of a unix socket has to stay below about 108 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="modal-server-"))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="modal-server", daemon=True)
        self._world = World(self.settings, self.folder, Blobs(self.folder / "blobs"))
        self._scheduler = Scheduler(self._world)
        self._storage = StorageResponder(self._world)
        self._volumes = VolumeResponder(self._world)
        self._web = WebResponder(self._world, self._scheduler)
        self._server: LineServer | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Kill all containers and remove everything. A second call does nothing."""
        if self._loop.is_closed():
            return
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def environment(self) -> dict[str, str]:
        """The variables of a client. Its configuration file is a private one: no real profile is ever used."""
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": self.settings.token[0],
            "MODAL_TOKEN_SECRET": self.settings.token[1],
            "MODAL_CONFIG_PATH": str(self.folder / "modal.toml"),
            "MODAL_ENVIRONMENT": ENVIRONMENT,
            "MODAL_LOGS_TIMEOUT": "2",
        }

    # What a test sets up.

    def set_secret(self, name: str, values: Mapping[str, str]) -> None:
        """As if it was created on Modal's page."""
        self._do(lambda: self._storage.add_secret(name, dict(values)))

    def answer(self, name: str, reply: Message) -> None:
        """Answer every call of that name, such as `WorkspaceBillingRates`, with this."""
        self._do(lambda: self._world.answers.__setitem__(name, reply))

    def forget_answer(self, name: str) -> None:
        """From now on, calls of that name are answered as usual."""
        self._do(lambda: self._world.answers.pop(name, None))

    def set_full_gpus(self, *gpus: str) -> None:
        """Make GPUs such as "H100:2" unavailable: a fallback list goes on to its next one."""
        self._do(lambda: self._world.full_gpus.__init__(gpus))  # type: ignore[misc]

    # What it saw.

    def calls(self, name: str | None = None, caller: str | None = None) -> list[Call]:
        """In the order of arrival, without heartbeats; `caller` is "client", or a container's id."""
        calls = self._do(lambda: list(self._world.record.calls))
        return [call for call in calls if name in (None, call.name) and caller in (None, call.caller)]

    def counts(self, caller: str | None = CLIENT) -> Counter[str]:
        """How often each call was made."""
        return Counter(call.name for call in self.calls(caller=caller))

    def forget_calls(self) -> None:
        """Start counting from zero."""
        self._do(self._world.record.calls.clear)

    def unknown_calls(self) -> Counter[str]:
        """Those that were answered UNIMPLEMENTED."""
        return self._do(lambda: Counter(self._world.record.unknown))

    def function_specs(self) -> dict[str, list[api_pb2.Function]]:
        """Function name -> what was defined under it, newest last; one per GPU of a fallback list."""
        return self._do(lambda: views.function_specs(self._world))

    def image_layers(self, function: str) -> list[str]:
        """The Dockerfile lines of the newest definition's image, bottom first."""
        return self._do(lambda: views.image_layers(self._world, function))

    def tasks(self, function: str | None = None) -> list[views.Task]:
        """All containers so far, oldest first."""
        return [task for task in self._do(lambda: views.tasks(self._world)) if function in (None, task.function)]

    def tasks_of(self, call_id: str) -> list[views.Task]:
        """The containers that got a call's input, one per attempt, newest last."""
        tasks = {task.id: task for task in self.tasks()}
        calls = {call.id: call for call in self.function_calls()}
        return [tasks[task_id] for task_id in calls[call_id].tasks]

    def function_calls(self, function: str | None = None) -> list[views.Spawned]:
        """All function calls, oldest first."""
        return [call for call in self._do(lambda: views.spawned(self._world)) if function in (None, call.function)]

    def peak_gpus(self) -> int:
        """The most GPUs that were in use at one moment."""
        return peak_gpus({task.id: (task.started_at, task.ended_at, task.gpu_count) for task in self.tasks()})

    def argument(self, call_id: str) -> Any:
        """The first argument of a call."""
        payload = self._do(lambda: self._world.call(call_id).inputs[0].payload.args)
        arguments, _ = deserialize(payload, None)
        return arguments[0]

    def log(self, *, call_id: str = "", function: str = "") -> str:
        """What was printed by one call, or by all calls of a function."""
        return self._do(lambda: views.log(self._world, call_id, function))

    def dict_items(self, name: str) -> dict[Any, Any]:
        """The entries of the modal.Dict of that name."""
        tables = self._do(lambda: [dict(one.entries) for one in self._world.dicts.values() if one.name == name])
        return {
            deserialize(key, None): deserialize(value, None) for key, value in (tables[0] if tables else {}).items()
        }

    def volume_tree(self, name: str) -> Path:
        """The committed files of a Volume, to be read only."""
        volume = self._do(lambda: self._volumes.named(name))
        if volume is None:
            raise LookupError(f"there is no Volume {name!r}")
        return volume.tree

    def requested_bytes(self) -> int:
        """How many bytes of files on Volumes were requested by clients."""
        return self._world.blobs.requested_bytes

    def slow_blocks(self, pause_s: float) -> None:
        """Wait so long before each block of a file on a Volume is sent."""
        self._world.blobs.pause_s = pause_s

    def commits(self, name: str) -> int:
        """How often anything was committed or uploaded to that Volume."""
        volume = self._do(lambda: self._volumes.named(name))
        return volume.commits if volume else 0

    def wait_until(self, condition: Callable[[], T], timeout_s: float = 20.0) -> T:
        """Wait until `condition` is true, and return its value."""
        deadline = time.monotonic() + timeout_s
        while True:
            began_at = time.monotonic()
            if answer := condition():
                return answer
            now = time.monotonic()
            if now > deadline:
                raise TimeoutError(f"not within {timeout_s} s; tasks: {self.tasks()}; calls: {self.function_calls()}")
            time.sleep(min(max(0.02, 4 * (now - began_at)), 0.2))  # what is waited for needs the processor

    # What it does to what runs.

    def preempt(self, task_id: str) -> None:
        """SIGINT, after the grace time SIGKILL; the same input starts again in another container."""
        self._do(lambda: found(self._world.containers, task_id, "Container").interrupt(preempted=True))

    def kill(self, task_id: str) -> None:
        """The container ends at once with 137, as from the out-of-memory killer; its input starts again."""
        self._do(lambda: found(self._world.containers, task_id, "Container").kill())

    def redeliver(self, call_id: str) -> None:
        """Give the call's input to another container, while the first one still works on it. The first answer
        counts."""

        def deliver() -> None:
            (one,) = self._world.call(call_id).inputs
            self._scheduler.pool(one.call.function).put(one, first=True)

        self._do(deliver)

    def lose_entries(self, name: str, lost: Callable[[Any], bool]) -> int:
        """Remove the entries of the modal.Dict of that name whose keys `lost` accepts; returns how many."""

        def lose() -> int:
            vanished = 0
            for table in (one for one in self._world.dicts.values() if one.name == name):
                keys = [key for key in table.entries if lost(deserialize(key, None))]
                vanished += len(keys)
                for key in keys:
                    del table.entries[key]
            return vanished

        return self._do(lose)

    def set_unavailable(self, unavailable: bool) -> None:
        """Answer every call of clients and containers with UNAVAILABLE, or stop doing so."""
        self._do(lambda: setattr(self._world.record, "unavailable", unavailable))

    def drop_connections(self) -> None:
        """Abort the connections of clients and containers, and refuse new ones."""
        self._do(self._world.lines.drop)

    def lose_connection(self, name: str, *, nth: int = 1) -> None:
        """Abort all connections when the nth call of that name arrives, and accept new ones at once."""

        def lose() -> None:
            self._world.lines.drop()
            self._world.lines.accept()

        self.act(name, lose, nth=nth)

    def accept_connections(self) -> None:
        """Accept new connections again."""
        self._do(self._world.lines.accept)

    def expire(self, call_id: str) -> None:
        """Remove a call's results, as Modal does after 7 days."""
        self._do(lambda: setattr(self._world.call(call_id), "expired", True))

    def fail(
        self,
        name: str,
        *,
        nth: int = 1,
        status: Status = Status.FAILED_PRECONDITION,
        message: str = "the test ordered this failure",
        after: bool = False,
        caller: str | None = None,
    ) -> None:
        """Fail the nth call of that name from now on; with `after` it has its effect and only the answer is lost.

        The client itself retries UNAVAILABLE, INTERNAL, UNKNOWN, CANCELLED and DEADLINE_EXCEEDED, and no others.
        """
        matches: Callable[[Message, str], bool] = lambda request, sender: caller in (None, sender)  # noqa: E731
        record = self._world.record
        self._do(lambda: record.fail(name, nth=nth, status=status, message=message, after=after, matches=matches))

    def fail_commit(self, volume: str, *, nth: int = 1, message: str = "conflict: the commit was refused") -> None:
        """Fail the nth commit of that Volume from now on, permanently: the client does not retry it."""
        self._fail_on_volume("VolumeCommit", volume, nth, message)

    def fail_reload(
        self,
        volume: str,
        *,
        nth: int = 1,
        message: str = "there are open files preventing the operation",
        caller: str | None = None,
    ) -> None:
        """Fail the nth reload of that Volume from now on. `caller`: only those of this container count."""
        self._fail_on_volume("VolumeReload", volume, nth, message, caller)

    def act(
        self, name: str, action: Callable[[], None], *, nth: int = 1, after: bool = False, caller: str | None = None
    ) -> None:
        """Run `action`, such as killing the client, when the nth call arrives, or with `after` before its answer."""
        matches: Callable[[Message, str], bool] = lambda request, sender: caller in (None, sender)  # noqa: E731
        self._do(lambda: self._world.record.act(name, action, nth=nth, after=after, matches=matches))

    def hold(self, name: str, *, nth: int = 1, after: bool = False, container: int | None = None) -> Callable[[], None]:
        """Let the nth call wait until what this returns is called: two clients meet at the same moment. `container`:
        only calls of that container count, the first one that makes such a call being 1."""
        gate = asyncio.Event()
        self._do(lambda: self._world.record.hold(name, gate, nth=nth, after=after, container=container))
        return lambda: self._do(gate.set)

    def _fail_on_volume(self, call: str, volume: str, nth: int, message: str, container: str | None = None) -> None:
        def matches(request: Any, caller: str) -> bool:
            its_own = caller != CLIENT and container in (None, caller)
            return its_own and bool(self._world.volumes[request.volume_id].name == volume)

        self._do(lambda: self._world.record.fail(call, nth=nth, message=message, matches=matches))

    async def _start(self) -> None:
        await self._world.blobs.start()
        await self._web.start()
        responders = (
            AppResponder(self._world, self._scheduler),
            FunctionResponder(self._world, self._scheduler),
            self._storage,
            self._volumes,
            LogResponder(self._world),
            self._web,
        )
        self._scheduler.serve_containers_with(responders)
        # With the protocol named, asyncio sets TCP_NODELAY; otherwise, each answer waits 40 ms for an acknowledgement.
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listening.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self._server = LineServer(
            [Dispatch(responders, self._world.record, self.settings, self._world.answers)], self._world.lines
        )
        await self._server.start(sock=listening)

    async def _stop(self) -> None:
        await self._scheduler.close()
        await self._web.stop()
        assert self._server is not None
        self._server.close()
        await self._world.blobs.stop()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def _do(self, action: Callable[[], T]) -> T:
        async def act() -> T:
            return action()

        return self._run(act())
