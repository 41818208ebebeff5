"""Containers as forks of a process that has imported Modal's entrypoint: a second of CPU less for each."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.forked_trainer.popen import BROKER
from tests.modal_server.interpreter import Interpreter
from tests.modal_server.layers import HOME

_SCRIPT = Path(__file__).with_name("template_script.py")


class Fork:
    """The part of asyncio's Process that a container needs."""

    def __init__(
        self, pid: int, line: tuple[asyncio.StreamReader, asyncio.StreamWriter], *printed: asyncio.StreamReader
    ) -> None:
        self.pid = pid
        self.stdout, self.stderr = printed
        self.returncode: int | None = None
        self._codes, self._line = line

    def send_signal(self, number: signal.Signals) -> None:
        # It may have ended, and been reaped by the template, before its exit code is read here.
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def wait(self) -> int:
        """Its exit code, negative for a signal."""
        self.returncode = int(await self._codes.readline() or -signal.SIGKILL)
        self._line.close()
        return self.returncode


async def start_fork(interpreter: Interpreter, spec: Path) -> Fork:
    """Start a container of that specification."""
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(_preloaded(interpreter, json.loads(spec.read_text()))))
    pipes = [os.pipe() for _ in range(2)]
    socket.send_fds(line, [str(spec).encode()], [write for _, write in pipes])
    for _, write in pipes:
        os.close(write)
    reader, writer = await asyncio.open_unix_connection(sock=line)
    printed = [await _reader(read) for read, _ in pipes]
    return Fork(int(await reader.readline()), (reader, writer), *printed)


async def _reader(descriptor: int) -> asyncio.StreamReader:
    stream = asyncio.StreamReader(limit=1 << 24)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb")
    )
    return stream


def _preloaded(interpreter: Interpreter, spec: Mapping[str, Any]) -> Path:
    """Where the process listens that has imported the container's code, too; for the first containers that have it, the
    one that has imported only the entrypoint, until they have left bytecode."""
    template, key = _template(interpreter), (interpreter, spec["module"], spec["layers"][-1])
    if not spec["module"] or not Path(spec["layers"][0], HOME.lstrip("/")).exists():
        return template
    with _turn:
        if key not in _listening:
            path = template.with_name(f"preloaded-{len(_listening)}")
            _listening[key] = path if _has_preloaded(template, path, spec) else template
        return _listening[key]


def _has_preloaded(template: Path, path: Path, spec: Mapping[str, Any]) -> bool:
    file = path.with_suffix(".json")
    file.write_text(json.dumps({"socket": str(path), "module": spec["module"], "layers": spec["layers"]}))
    line = socket.socket(socket.AF_UNIX)
    line.connect(str(template))
    with open(os.devnull, "w") as nothing:
        socket.send_fds(line, [str(file).encode()], [nothing.fileno()] * 2)
    _lines.append(line)
    lines = line.makefile("rb")
    lines.readline()  # its process
    while not path.exists():
        if select.select([line], [], [], 0.01)[0]:  # its exit code
            return False
    return True


_listening: dict[tuple[Interpreter, str, str], Path] = {}
_lines: list[socket.socket] = []
"""To the processes that have imported more. They end with these."""
_turn = threading.Lock()


@cache
def _template(interpreter: Interpreter) -> Path:
    """The address where it listens, even before it has imported anything. It is started once, and ends with this
    process."""
    folder = Path(tempfile.mkdtemp(prefix="modal-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "socket"
    process = subprocess.Popen(
        [interpreter.python, "-u", _SCRIPT, path, *interpreter.appended],
        env={"LANG": "C.UTF-8", BROKER: os.environ.get(BROKER, "")}, cwd="/", stdin=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    assert process.stdin is not None
    atexit.register(process.stdin.close)
    while not path.exists():
        assert process.poll() is None, "the template of the containers has ended"
    return path
