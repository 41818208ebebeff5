"""A stand-in for the Hugging Face hub: one model folder under a name, at its own protocol. A test tool."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34


@dataclass
class Hub:
    name: str
    folder: Path
    url: str = ""
    served: Counter[str] = field(default_factory=Counter)
    """Files whose bytes were sent."""

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.is_file())


@contextmanager
def serve_hub(name: str, folder: Path) -> Iterator[Hub]:
    hub = Hub(name, folder)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        if path.startswith(f"/api/models/{self.hub.name}/tree/"):
            self._send(json.dumps(self._tree()).encode(), "application/json", with_body)
            return
        if path.startswith(f"/api/models/{self.hub.name}"):
            self._send(json.dumps(self._info()).encode(), "application/json", with_body)
            return
        for revision in (COMMIT, "main"):
            prefix = f"/{self.hub.name}/resolve/{revision}/"
            if path.startswith(prefix) and path.removeprefix(prefix) in self.hub.files():
                self._send_file(self.hub.folder / path.removeprefix(prefix), with_body)
                return
        self.send_response(404)
        self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _info(self) -> dict[str, object]:
        siblings = [{"rfilename": name} for name in self.hub.files()]
        return {"id": self.hub.name, "modelId": self.hub.name, "sha": COMMIT, "siblings": siblings, "tags": []}

    def _tree(self) -> list[dict[str, object]]:
        sizes = {name: (self.hub.folder / name).stat().st_size for name in self.hub.files()}
        return [{"type": "file", "path": name, "size": size, "oid": f"{size:040x}"} for name, size in sizes.items()]

    def _send_file(self, path: Path, with_body: bool) -> None:
        if with_body:
            self.hub.served[path.name] += 1
        self._send(path.read_bytes(), "application/octet-stream", with_body)

    def _send(self, body: bytes, kind: str, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""
