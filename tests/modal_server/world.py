"""What exists on the server: apps and their versions, functions and their variants, secrets, images, dicts."""

from __future__ import annotations

import secrets as randomness
import string
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from tests.modal_server.lines import Lines
from tests.modal_server.logs import Logs
from tests.modal_server.record import Record
from tests.modal_server.settings import Settings

if TYPE_CHECKING:
    from tests.modal_server.blobs import Blobs
    from tests.modal_server.calls import FunctionCall, Input
    from tests.modal_server.container import Container
    from tests.modal_server.pool import Pool
    from tests.modal_server.volumes import Volume

T = TypeVar("T")
ENVIRONMENT = "main"
_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """The command line takes an app's id for a name unless 22 letters and digits follow the prefix."""
    return f"{prefix}-" + "".join(randomness.choice(_ALPHABET) for _ in range(22))


def missing(what: str) -> GRPCError:
    """The error with which a look-up is answered."""
    return GRPCError(Status.NOT_FOUND, f"{what} not found")


@dataclass(slots=True)
class Definition:
    """The code and resources of a function in one deployment; `ranked` has one entry per acceptable GPU."""

    id: str
    data: api_pb2.FunctionData

    @property
    def ranked(self) -> tuple[api_pb2.Function, ...]:
        return tuple(entry.function for entry in self.data.ranked_functions)


@dataclass(slots=True)
class FunctionRecord:
    """A function, or a variant of one: options bound to it, a version pinned to it."""

    id: str
    app_id: str
    name: str
    metadata: api_pb2.FunctionHandleMetadata
    definition: Definition | None = None
    base: FunctionRecord | None = None
    pinned: Definition | None = None
    options: api_pb2.FunctionOptions = field(default_factory=api_pb2.FunctionOptions)
    pool: Pool | None = None

    @property
    def current(self) -> Definition:
        """The version that a call runs now: a pinned variant stays at its version, any other follows the newest
        deployment."""
        definition = self.pinned or (self.base or self).definition
        if definition is None:
            raise missing(f"Definition of function {self.name!r}")
        return definition


@dataclass(slots=True)
class App:
    """`versions[n - 1]` maps the function names of the n-th deployment to (function id, definition id)."""

    id: str
    description: str
    environment: str
    state: int
    created_at: float = field(default_factory=time.time)
    stopped_at: float = 0.0
    deployed_at: float = 0.0
    name: str = ""
    tags: dict[str, str] = field(default_factory=dict)
    function_ids: dict[str, str] = field(default_factory=dict)
    versions: list[dict[str, tuple[str, str]]] = field(default_factory=list)

    @property
    def stopped(self) -> bool:
        return self.state == api_pb2.APP_STATE_STOPPED

    def lifecycle(self) -> api_pb2.AppLifecycle:
        return api_pb2.AppLifecycle(
            app_state=self.state,  # type: ignore[arg-type]
            created_at=self.created_at,
            deployed_at=self.deployed_at,
            version=len(self.versions),
            stopped_at=self.stopped_at,
        )


@dataclass(slots=True)
class NamedSecret:
    """Variables that containers get. Without a name, it belongs to the app that created it."""

    id: str
    name: str
    values: dict[str, str]

    def metadata(self) -> api_pb2.SecretMetadata:
        return api_pb2.SecretMetadata(name=self.name, keys=sorted(self.values), environment_name=ENVIRONMENT)


@dataclass(slots=True)
class Image:
    """One layer; what runs in it is this machine, with the ENV and WORKDIR lines of the chain below."""

    id: str
    request: api_pb2.Image
    environment: dict[str, str]
    workdir: str


@dataclass(slots=True)
class KeyValues:
    """A modal.Dict: serialized keys and values."""

    id: str
    name: str
    entries: dict[bytes, bytes] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """All state of one server. Used only from its event loop."""

    settings: Settings
    folder: Path
    blobs: Blobs
    record: Record = field(default_factory=Record)
    logs: Logs = field(default_factory=Logs)
    answers: dict[str, Message] = field(default_factory=dict)
    apps: dict[str, App] = field(default_factory=dict)
    deployed: dict[tuple[str, str], str] = field(default_factory=dict)
    functions: dict[str, FunctionRecord] = field(default_factory=dict)
    definitions: dict[str, Definition] = field(default_factory=dict)
    calls: dict[str, FunctionCall] = field(default_factory=dict)
    inputs: dict[str, Input] = field(default_factory=dict)
    containers: dict[str, Container] = field(default_factory=dict)
    secrets: dict[str, NamedSecret] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    mounts: dict[str, api_pb2.MountGetOrCreateRequest] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    dicts: dict[str, KeyValues] = field(default_factory=dict)
    full_gpus: set[str] = field(default_factory=set)
    lines: Lines = field(default_factory=Lines)
    web_url: str = ""
    """Below it is every web function, by its id."""

    def pools(self) -> Iterable[Pool]:
        """The pools of all functions and variants that were called."""
        return [record.pool for record in self.functions.values() if record.pool is not None]

    def app(self, app_id: str) -> App:
        return found(self.apps, app_id, "App")

    def function(self, function_id: str) -> FunctionRecord:
        return found(self.functions, function_id, "Function")

    def call(self, call_id: str) -> FunctionCall:
        return found(self.calls, call_id, "Function call")


def found(table: dict[str, T], key: str, what: str) -> T:
    """The entry, or Modal's error."""
    if key not in table:
        raise missing(f"{what} {key!r}")
    return table[key]


def environment_of(name: str) -> str:
    """An empty environment name means the default one."""
    return name or ENVIRONMENT
