"""`axosweep watch`: serves the report of a sweep to this machine's browser, updated while the sweep runs.

On a terminal, the live view is shown meanwhile.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from modal_app.serving import peers
from modal_app.store.layout import Store
from runner.console import terminal
from runner.console.parser import VerbParser, port_number
from runner.errors import SweepError
from runner.html_report.gather import gather
from runner.html_report.page import html, write_report
from runner.show.sweep_view import SweepView
from runner.store.finding import sweep_in
from runner.store.mirror_age import stale
from runner.store.stores import stores

HOST = "127.0.0.1"
FRESH_S = 2.0
"""Values younger than this are served again: a page requests them every three seconds."""
REDRAW_S = 2.0
LOOK_S = 15.0
"""Between two looks at Modal."""
LINGER_S = 1.0
"""After the last page: a browser may still request what it does not have."""


def parser() -> VerbParser:
    verb = VerbParser("watch", description="The report of a sweep in the browser, kept up to date while it runs.")
    verb.add_sweep()
    verb.add("--port", type=port_number, default=0, help="the port at 127.0.0.1; a free one by default")
    verb.add_store()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    found = sweep_in(stores(args.store), args.sweep)
    return watch(found.store, found.sweep, args.port)


@dataclass(slots=True)
class Source:
    """The values of a sweep, gathered again at a request if they are too old."""

    store: Store
    sweep: str
    look: Callable[[], None]
    """Brings a mirror up to date; does nothing for a sweep of this machine."""
    served_last: threading.Event = field(default_factory=threading.Event)
    """Whether a page has received the values of an ended sweep."""
    _values: dict[str, Any] = field(default_factory=dict)
    _until: float = 0.0
    _look_at: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def values(self) -> dict[str, Any]:
        with self._lock:
            now = time.monotonic()
            if now >= self._until:
                if now >= self._look_at:
                    self._look()
                    self._look_at = time.monotonic() + LOOK_S
                self._values = gather(self.store, self.sweep)
                self._until = time.monotonic() + FRESH_S
            return self._values

    def _look(self) -> None:
        try:
            self.look()
        except SweepError as error:  # what was seen before is still shown
            terminal.message(f"The state on Modal is not known: {error}")


def watch(store: Store, sweep: str, port: int) -> int:
    """Serve until the sweep has ended and a page shows it, or until Ctrl-C; the report is then written.

    `port` 0 is any free port. Raises SweepError when the port is taken.
    """
    source = Source(store, sweep, lambda: _look(store, sweep))
    source.values()
    try:
        server = ThreadingHTTPServer((HOST, port), _handler_of(source))
    except OSError as error:
        raise SweepError(f"Port {port} cannot be used ({error.strerror}): --port 0 takes a free one.") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    terminal.result(f"{sweep}: http://{HOST}:{server.server_port}/  (Ctrl-C ends it)")
    view = SweepView(store, sweep)
    try:
        while not source.served_last.wait(REDRAW_S):
            if view.is_live:
                view.update()
        time.sleep(LINGER_S)
    except KeyboardInterrupt:
        terminal.message("Stopped watching; the sweep itself continues.")
    finally:
        view.close()
        server.shutdown()
        server.server_close()
    terminal.result(f"Report: {write_report(store, sweep)}")
    return 0


def _look(store: Store, sweep: str) -> None:
    if stale(store, sweep):
        from runner.executors import modal_verbs

        modal_verbs.look(store, sweep)


def _handler_of(source: Source) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)  # a foreign page, under a name that resolves to this machine
                return
            if peers.are_known() and not peers.is_own_user(self.client_address[:2], self.connection.getsockname()[:2]):
                self.send_error(HTTPStatus.FORBIDDEN)  # another user of this machine
                return
            match self.path.partition("?")[0]:
                case "/":
                    values = source.values()
                    self._send("text/html; charset=utf-8", html(values, served=True))
                case "/values.json":
                    values = source.values()
                    self._send("application/json", json.dumps(values, allow_nan=False))
                case _:
                    self.send_error(HTTPStatus.NOT_FOUND)
                    return
            if not values["going_on"]:
                source.served_last.set()

        def _send(self, kind: str, text: str) -> None:
            body = text.encode()
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *values: Any) -> None:
            """Nothing: the terminal shows the address, not each request."""

    return Handler
