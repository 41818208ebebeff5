"""A webhook: a real HTTP server that records what it gets, and can be made to refuse or to hang."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/services/T000/B000/very-secret-path"
WITHIN_S = 30.0


@dataclass
class Webhook:
    port: int = 0
    status: int = 200
    hangs: threading.Event | None = None
    """Requests are answered when it is set."""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    """The accepted bodies, oldest first."""
    refused: list[dict[str, Any]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    def events(self) -> list[str]:
        return [body["event"] for body in self.bodies]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WITHIN_S
        while not condition():
            assert time.monotonic() < deadline, self.bodies
            time.sleep(0.02)


@contextlib.contextmanager
def serve_webhook() -> Iterator[Webhook]:
    webhook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if webhook.hangs is not None:
                webhook.hangs.wait(WITHIN_S)
            if webhook.status == 200 and self.path == PATH:
                webhook.bodies.append(body)
            else:
                webhook.refused.append(body)
            with contextlib.suppress(OSError):  # the client may have given up
                self.send_response(webhook.status if self.path == PATH else 404)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    webhook.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield webhook
    finally:
        if webhook.hangs is not None:
            webhook.hangs.set()
        server.shutdown()
        server.server_close()
