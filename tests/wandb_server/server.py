"""The HTTP side of the fake: GraphQL, the file stream, and the uploads that their answers name."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.wandb_server.artifacts import artifact
from tests.wandb_server.graphql import answer
from tests.wandb_server.records import Run, World

KEY = "local" + "0" * 40
"""The SDK requires 40 characters or more."""


KNOWN = {f"Basic {base64.b64encode(f'api:{KEY}'.encode()).decode()}", f"Bearer {KEY}"}


class Fault(StrEnum):
    ERROR = "status 500"
    HTML = "a page of a proxy"
    TRUNCATED = "JSON that is cut off"
    NULL = "JSON of another shape"
    REDIRECT = "a redirect to itself"
    HANG = "nothing"


@dataclass
class WandbServer:
    url: str
    world: World = field(default_factory=World)
    faults: dict[str, Fault] = field(default_factory=dict)
    """Run id -> how the server answers requests about that run."""

    def environment(self) -> Mapping[str, str]:
        """The variables that point the SDK to this server, and to no other."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": KEY,
            "WANDB_ERROR_REPORTING": "false",
            "WANDB_SILENT": "true",
        }

    def runs(self, project: str = "axosweep") -> dict[str, Run]:
        """The runs of a project, by id."""
        return {name: run for (where, name), run in self.world.runs.items() if where == project}


@contextlib.contextmanager
def serve_wandb() -> Iterator[WandbServer]:
    server = _Quiet(("127.0.0.1", 0), _Handler)
    wandb = server.wandb = WandbServer(f"http://127.0.0.1:{server.server_port}")
    server.stopping = threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield wandb
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    wandb: WandbServer
    stopping: threading.Event

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed resets its connection, which is not reported."""
        import sys

        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Quiet

    def do_POST(self) -> None:
        wandb, body, path = self.server.wandb, self._body(), unquote(urlsplit(self.path).path)
        for id, fault in wandb.faults.items():
            if f"/{id}/" in path or f'"{id}"'.encode() in body:
                self._fail(fault)
                return
        if path == "/graphql" and self.headers.get("Authorization") not in KNOWN:
            self._send(401, b'{"errors": [{"message": "user is not logged in"}]}')
            return
        if path == "/graphql":
            self._send(200, json.dumps(answer(wandb.world, wandb.url, json.loads(body))).encode())
        elif path.startswith("/files/") and path.endswith("/file_stream"):
            _, project, name = path.removeprefix("/files/").removesuffix("/file_stream").split("/")
            with wandb.world.lock:
                run = wandb.world.find(project, name)
                assert run is not None
                run.stream(json.loads(body))
                wandb.world.asked["file_stream"] += 1
            self._send(200, b"{}")
        else:
            self._send(404, b"{}")  # telemetry

    def do_PUT(self) -> None:
        content, parts = self._body(), unquote(urlsplit(self.path).path).lstrip("/").split("/")
        world = self.server.wandb.world
        with world.lock:
            match parts:
                case ["storage", project, run, *name]:
                    world.runs[project, run].files["/".join(name)] = content
                case ["artifact-manifest", key]:
                    artifact(world, key).manifest = content
                case ["artifact-file", key, *name]:
                    artifact(world, key).files["/".join(name)] = content
                case _:
                    self._send(404, b"{}")
                    return
        self._send(200, b"")

    def do_GET(self) -> None:
        match unquote(urlsplit(self.path).path).lstrip("/").split("/"):
            case ["storage", project, run, *name]:
                content = self.server.wandb.world.runs[project, run].files["/".join(name)]
                self._send(200, content)
            case _:
                self._send(404, b"{}")

    def _fail(self, fault: Fault) -> None:
        match fault:
            case Fault.ERROR:
                self._send(500, b"out of order")
            case Fault.HTML:
                self._send(200, b"<html>Sign in to the network</html>")
            case Fault.TRUNCATED:
                self._send(200, b'{"data": {"project": {"ru')
            case Fault.NULL:
                self._send(200, b'{"data": {"project": {"run": []}, "upsertBucket": 7}}')
            case Fault.REDIRECT:
                self.send_response(302)
                self.send_header("Location", self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
            case Fault.HANG:
                self.server.stopping.wait()

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""
