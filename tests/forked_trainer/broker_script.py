"""Passes a request for a trainer on to the process that has its imports: `broker_script NAME PYTHON < pipe`.

Listens on the abstract socket NAME until stdin ends. PYTHON is the trainer's. There are also processes with the
imports of some programs of the launcher's Python: its command line, what talks to W&B, and workers that do nothing. A
request of one of the first two environments starts a process with the trainer's imports, which are those of most
tests: on this machine, and in the containers of the local Modal. So does one of another environment that is seen for
the second time. Requests before that, for another Python, and those beyond MOST environments are refused, and start a
process as usual. No process with the imports is started for a verb that imports little.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from modal_app.process.attempt import NO_TELEMETRY, base_environment
from modal_app.store.step import Device
from modal_app.warm.context import MODULES, import_environment
from tests.forked_trainer.popen import COMMAND as COMMAND_PROGRAM
from tests.forked_trainer.popen import NOOP, READY, WANDB, receive

TEMPLATE = Path(__file__).with_name("template_script.py")
MOST = 4
"""Each takes a gigabyte."""
AT_ONCE = 2
OF_A_FORK = ("HF_ENDPOINT", "HF_HOME", "AXOLOTL_DATASET_NUM_PROC", "DS_ACCELERATOR", "PYTHONUNBUFFERED")
"""Variables that a fork takes on itself, so that a template may have others: those of the hub and its cache, of
tokenizing rows, of DeepSpeed (which a template does not import), and of its streams."""
SOURCES = str(Path(__file__).resolve().parents[2])
"""As PYTHONPATH, it hides none of what is imported."""
CUSTOMIZE = ("sitecustomize", "usercustomize")
"""Modules that Python imports first."""
IMPORTS_LITTLE = "fetch"
"""The verb of the trainer that takes less time than the imports of a process that forks."""
DOES_NOTHING = "NOOP_TRAIN_S"
"""The variable of containers whose steps do nothing, which imports little, too."""
MADE_AT_IMPORT = ("TORCHINDUCTOR_CACHE_DIR",)
"""Folders that imports create, which are those of a container. They are looked up again when they are used."""
Key = tuple[tuple[str, str], ...]
"""What the imports read of the environment."""
OF_THE_LAUNCHER = {"command": (COMMAND_PROGRAM,), "wandb": WANDB, "noop": NOOP}
"""Programs of the launcher's Python by the imports that they share, which read nothing of the environment."""


class Broker:
    def __init__(self, python: str) -> None:
        self._python = python
        installed = Path(python).parent.parent.glob("lib/*/site-packages/*")
        self._imported = {*sys.stdlib_module_names, *CUSTOMIZE, *(path.name.partition(".")[0] for path in installed)}
        self._seen: Counter[Key] = Counter()
        self._templates: dict[Key, socket.socket] = {}
        self._launchers: dict[str, socket.socket] = {}

    def answer(self, line: socket.socket) -> None:
        request, _ = receive(line)
        template = self._template(request["words"], request["environment"])
        line.sendall(READY if template else b"n")
        if template:
            socket.send_fds(template, [b"c"], [line.fileno()])

    def _template(self, words: Sequence[str], environment: Mapping[str, str]) -> socket.socket | None:
        """None for another program of the launcher's Python."""
        python, program = words[:2]
        if python == sys.executable:
            return self._launcher(program, environment)
        if python != self._python:
            return None
        key = self._key(environment)
        imports_little = words[-1] == IMPORTS_LITTLE or DOES_NOTHING in environment
        return self._templates.get(key) if imports_little else self._trainer(key)

    def _launcher(self, program: str, environment: Mapping[str, str]) -> socket.socket | None:
        kind = next((kind for kind, programs in OF_THE_LAUNCHER.items() if program.endswith(programs)), None)
        if kind == "noop" and DOES_NOTHING not in environment:
            return None  # other workers of tests do something to the process that has started them
        if kind is not None and kind not in self._launchers:
            self._launchers[kind] = _start(kind, sys.executable, ())
        return self._launchers[kind] if kind is not None else None

    def _key(self, environment: Mapping[str, str]) -> Key:
        chosen = {name: environment[name] for name in NO_TELEMETRY if name in environment}
        environment = {name: value for name, value in environment.items() if name not in OF_A_FORK}
        if not any(map(self._hides_something, environment.get(MODULES, "").split(os.pathsep))):
            environment.pop(MODULES, None)
        return tuple(sorted(import_environment({**environment, **base_environment(Device.CPU), **chosen}).items()))

    def _hides_something(self, folder: str) -> bool:
        """Whether an import of the trainer's would find something else in this folder of PYTHONPATH."""
        if folder in ("", SOURCES):
            return False
        if not os.path.isabs(folder):
            return True
        names = {path.name.partition(".")[0] for path in Path(folder).glob("*")}
        return not names.isdisjoint(self._imported)

    def _trainer(self, key: Key) -> socket.socket | None:
        self._seen[key] += 1
        is_common = self._seen[key] > 1 or len(self._seen) <= AT_ONCE
        if key not in self._templates and is_common and len(self._templates) < MOST:
            self._templates[key] = _start("trainer", self._python, key)
        return self._templates.get(key)


def _start(kind: str, python: str, environment: Key) -> socket.socket:
    """Warnings of the imports are printed only if these fail: the log of a successful run is quiet."""
    ours, theirs = socket.socketpair()
    variables = {name: value for name, value in environment if name not in MADE_AT_IMPORT}
    warned = tempfile.TemporaryFile()  # noqa: SIM115 - read when the process has ended
    with theirs:
        template = subprocess.Popen(
            [python, TEMPLATE, kind, str(theirs.fileno()), " " * 1024],
            env=variables or None, cwd="/", stdin=subprocess.DEVNULL, stderr=warned, pass_fds=[theirs.fileno()],
            start_new_session=True,
        )  # fmt: skip
    threading.Thread(target=_print_if_failed, args=(template, warned), daemon=True).start()
    return ours


def _print_if_failed(template: subprocess.Popen[bytes], warned: IO[bytes]) -> None:
    if template.wait() > 0:
        warned.seek(0)
        sys.stderr.buffer.write(warned.read())
        sys.stderr.flush()


def main(name: str, python: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"\0{name}")
    listener.listen(64)
    broker = Broker(python)
    with selectors.DefaultSelector() as waiting:
        waiting.register(listener, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        print(flush=True)
        while all(key.fileobj is listener for key, _ in waiting.select()):
            with listener.accept()[0] as line, contextlib.suppress(OSError):  # the process that asked may have ended
                broker.answer(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
