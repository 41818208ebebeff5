"""Programs as forks of a process that has their imports: they do the same as separate processes, without the time to
import.

For programs that print something and end. A module that the server has imported is there in each fork, so the forks of
a server without a library show who imports that.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).with_name("fork_server_script.py")
ROOT = Path(__file__).resolve().parent.parent


class ForkServer:
    def __init__(
        self, modules: Sequence[str], options: Sequence[str] = (), python: str | Path = sys.executable
    ) -> None:
        self._process = subprocess.Popen(
            [python, *options, SCRIPT, *modules],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        self._line()

    def run(
        self,
        program: Path,
        *words: str,
        environment: Mapping[str, str] | None = None,
        folder: Path = ROOT,
        timeout_s: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """`python PROGRAM WORDS`. Raises subprocess.TimeoutExpired."""
        with tempfile.TemporaryDirectory(prefix="axosweep-tests-") as name:
            output, errors = Path(name, "output"), Path(name, "errors")
            request = {
                "words": [str(program), *words],
                "environment": dict(os.environ if environment is None else environment),
                "folder": str(folder), "output": str(output), "errors": str(errors),
            }  # fmt: skip
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            pid = int(self._line())
            assert self._process.stdout is not None
            if not select.select([self._process.stdout], [], [], timeout_s)[0]:
                os.kill(pid, signal.SIGKILL)
                self._line()
                raise subprocess.TimeoutExpired([program, *words], timeout_s, output.read_bytes(), errors.read_bytes())
            code = int(self._line())
            return subprocess.CompletedProcess([program, *words], code, output.read_text(), errors.read_text())

    def _line(self) -> bytes:
        """A line that the server prints. If the server has ended, it has printed its own error."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that forks has ended"
        return line

    def close(self) -> None:
        self._process.communicate()


@contextmanager
def fork_server(
    *modules: str, options: Sequence[str] = (), python: str | Path = sys.executable
) -> Iterator[ForkServer]:
    server = ForkServer(modules, options, python)
    try:
        yield server
    finally:
        server.close()
