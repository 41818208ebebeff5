"""The local server: `python modal_app/run.py serve < spec`. Standard library until it loads.

It first reads a Serving, one line, from standard input. When that input ends, its starter has ended, and it ends, too.
It writes its progress to standard output, one JSON object a line, and everything else to its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from modal_app.process.attempt import redirect
from modal_app.process.stop import end_with_parent
from modal_app.serving.spec import Serving
from modal_app.store.pins import InputChanged, check_config

GRACE_S = 3
"""For answers that are being generated when the server must end."""
LOG = "log.txt"
LINE = "line.sock"
"""A socket in the server's folder, through which a fork reaches its starter."""
EXIT_FAILED = 1


def main() -> int:
    """Works in the current directory, which belongs to the server and is removed at its end."""
    end = _End()
    end_with_parent(signal.SIGTERM)
    return _work(sys.stdin, os.fdopen(os.dup(1), "w", encoding="utf-8"), end)


def forked(place: Path) -> int:
    """The same in the folder `place`, in a fork of a preloaded trainer (modal_app.warm.server), which outlives it.

    Instead of standard input and output it uses a socket in the folder, through which it also receives the socket to
    listen on.
    """
    os.chdir(place)
    line = socket.socket(socket.AF_UNIX)
    line.connect(LINE)
    listening = socket.recv_fds(line, 1, 1)[1][0]
    events = line.makefile("w", encoding="utf-8")
    _tell(events, event="forked", pid=os.getpid())
    return _work(line.makefile("r", encoding="utf-8"), events, _End(), listening)


def _use_threads(number: int) -> None:
    """More than the one of a run, whose losses must not depend on the machine."""
    if number > 0:
        import torch

        torch.set_num_threads(number)


def _work(commands: TextIO, events: TextIO, end: _End, listening: int | None = None) -> int:
    redirect(Path(LOG).absolute())
    spec = commands.readline()
    threading.Thread(target=end.wait_for_parent, args=(commands,), daemon=True).start()
    try:
        if spec:
            serving = Serving.from_json(spec)
            _use_threads(serving.threads)
            _serve(serving if listening is None else replace(serving, socket=listening), end, events)
    except Exception as error:  # the process boundary: the launcher prints it
        traceback.print_exc()
        named = "" if isinstance(error, InputChanged) else f"{type(error).__name__}: "
        _tell(events, event="failed", message=f"{named}{error}")
        return EXIT_FAILED
    end.now()
    return 0


class _End:
    """Ends the process, also after a signal: at once while it loads, after a moment for its answers while it serves."""

    def __init__(self) -> None:
        self._server: Any = None
        self._here = Path.cwd()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.ask())

    def serves(self, server: Any) -> None:
        self._server = server

    def ask(self) -> None:
        if self._server is None:
            self.now()
        self._server.should_exit = True

    def wait_for_parent(self, commands: TextIO) -> None:
        with contextlib.suppress(OSError):  # the other end of the socket is closed
            while commands.read(1 << 16):
                pass
        self.ask()
        time.sleep(2 * GRACE_S)
        self.now()

    def now(self) -> None:
        """End without waiting for threads that generate."""
        shutil.rmtree(self._here, ignore_errors=True)
        sys.stderr.flush()
        os._exit(0)


def _serve(serving: Serving, end: _End, events: TextIO) -> None:
    Path("inputs").symlink_to(serving.inputs)
    if "axolotl" not in sys.modules:
        _tell(events, event="importing")
    import uvicorn

    from modal_app.serving.models import Models
    from modal_app.serving.openai_api import application

    models = Models(serving.models, lambda name: _tell(events, event="loading", model=name))
    for one in serving.models:  # the launcher has checked them before they were loaded
        check_config(one.config, Path(serving.inputs))

    class Server(uvicorn.Server):  # type: ignore[misc]
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            _tell(events, event="ready")

    config = uvicorn.Config(
        application(models, serving.token, serving.max_body),
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
    )
    server = Server(config)
    end.serves(server)
    server.run(sockets=[socket.socket(fileno=serving.socket)])


def _tell(events: TextIO, **event: Any) -> None:
    try:
        print(json.dumps(event), file=events, flush=True)
    except ConnectionError:
        return  # the starter has ended, which the end of the input shows, too
