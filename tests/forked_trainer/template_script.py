"""A process that has imported Axolotl, and forks into trainers: `template_script.py trainer DESCRIPTOR PADDING`.

Or one that has imported the launcher, and forks into its commands: `template_script.py command DESCRIPTOR PADDING`.
Or one that has imported W&B's SDK, and forks into what talks to W&B: `template_script.py wandb DESCRIPTOR PADDING`.
Or one that forks into workers of tests/modal_server/noop_worker.py: `template_script.py noop DESCRIPTOR PADDING`.
DESCRIPTOR is a socket that brings a connection for each trainer; it ends with that socket, its trainers do not. PADDING
leaves room for their command lines. It runs under their Python, with the environment that the imports read.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import os
import random
import resource
import runpy
import selectors
import signal
import socket
import struct
import sys
import tempfile
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NoReturn

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "modal_app" / "run.py"
PACKAGE = "modal_app"
PR_SET_MM, PR_SET_MM_ARG_END = 35, 9
PR_SET_THP_DISABLE = 41
ARG_START = 45
"""Of the fields of /proc/PID/stat behind the name, the one with the address of the command line; its end follows."""
RATING = ("lm_eval", "lm_eval.models.huggingface", "lm_eval.tasks")
"""What an evaluation on tasks imports late."""
OWN = ("modal_app.warm.server", "modal_app.worker")
"""What a worker and a preloaded trainer import of this package."""
HUB = "https://huggingface.co"
"""The hub's address in the imported modules, without HF_ENDPOINT."""
FIRST_FREE = 200
"""Descriptors from here on are not used by a new process."""


def _room() -> tuple[int, int]:
    """Where the command line of this process begins and ends."""
    with open("/proc/self/stat") as stat:
        start, end = map(int, stat.read().rpartition(")")[2].split()[ARG_START : ARG_START + 2])
    return start, end


ROOM = _room()
"""Of the template; a fork's command line takes less of it."""
addresses: list[tuple[types.ModuleType, str, str]] = []
"""The names that hold the hub's address, or one there, and what of it follows the hub's."""
clients: list[Any] = []
"""Of the hub: they have its address, too."""
caches: list[tuple[types.ModuleType, str, str]] = []
"""The names that hold the folder of the hub's cache, or one in it, and what of it follows that folder."""
PATH = sys.path[1:]
"""Of the template, which has neither a script's folder nor PYTHONPATH."""

popen = types.SimpleNamespace(**runpy.run_path(str(ROOT / "tests" / "forked_trainer" / "popen.py")))
run_to_end: Callable[[Callable[[], object]], NoReturn] = runpy.run_path(str(ROOT / "tests" / "run_to_end.py"))[
    "run_to_end"
]


def import_everything() -> None:
    runpy.run_path(str(RUN))["register"](RUN.parent)
    from modal_app.process.attempt import base_environment
    from modal_app.process.imports import FOLLOW_UP, load
    from modal_app.store.step import Device
    from modal_app.warm.preload import EVERYTHING, LATE

    os.environ |= base_environment(Device.CPU)
    load((*EVERYTHING, *FOLLOW_UP), Device.CPU, optional=LATE)
    for name in (*RATING, *OWN):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def import_command() -> None:
    """What a command imports and parses at its start; the modules that it imports later read its environment."""
    importlib.import_module("tests.command_composed")
    gc.freeze()


def import_wandb() -> None:
    """The SDK and what asks it. In a fork, `wandb` is set up when it is used for the first time."""
    for name in ("here", "read", "sdk", "sweep_object", "upload", "view"):
        importlib.import_module(f"runner.wandb.process.{name}")
    gc.freeze()


def import_noop() -> None:
    """What such a worker imports at its start, and the library that it writes its config with."""
    runpy.run_path(str(RUN))["register"](RUN.parent)
    runpy.run_path(str(ROOT / "tests" / "modal_server" / "noop_worker.py"))
    importlib.import_module("yaml")
    gc.freeze()


def serve(connections: socket.socket) -> None:
    """Serve until the socket is closed."""
    with selectors.DefaultSelector() as waiting:
        waiting.register(connections, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.data is not None:
                    waiting.unregister(key.fileobj)
                    report(*key.data)
                    os.close(key.fd)
                    continue
                message, descriptors, _, _ = socket.recv_fds(connections, 1, 1)
                if not message:
                    return
                line = socket.socket(fileno=descriptors[0])
                with contextlib.suppress(OSError):  # the process that asked has ended
                    pid = fork(line)
                    waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, line))


def report(pid: int, line: socket.socket) -> None:
    """Its exit code. A process that waits for one in a container has sent that itself."""
    _, status = os.waitpid(pid, 0)
    with line, contextlib.suppress(OSError):
        line.send(b"%d\n" % os.waitstatus_to_exitcode(status))


def fork(line: socket.socket) -> int:
    request, descriptors = popen.receive(line)
    client = struct.unpack("3i", line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    pid = os.fork()
    if pid == 0:
        try:
            if not _shares_processes(client):
                _enter_container(client)
                _wait_outside(os.fork(), line)
            become(request, descriptors, line)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    for descriptor in descriptors:
        os.close(descriptor)
    return pid


def _shares_processes(pid: int) -> bool:
    """False for a process in a container."""
    return os.stat(f"/proc/{pid}/ns/pid").st_ino == os.stat("/proc/self/ns/pid").st_ino


def _enter_container(pid: int) -> None:
    """Enter the namespace of that process. The next child of this process is inside of it."""
    root, process = os.open(f"/proc/{pid}/root", os.O_PATH), os.pidfd_open(pid)
    os.setns(process, os.CLONE_NEWNS | os.CLONE_NEWPID)  # type: ignore[attr-defined]  # Python 3.12 and above
    os.fchdir(root)
    os.chroot(".")


def _wait_outside(child: int, line: socket.socket) -> None:
    """In the parent: report the child's end, and end."""
    if child:
        report(child, line)
        os._exit(0)


def become(request: dict[str, Any], descriptors: list[int], line: socket.socket | None = None) -> NoReturn:
    """The process that the request describes; its id is sent over the line."""
    if request["new_session"]:
        os.setsid()
    _place(descriptors, request["descriptors"], line)
    os.environ.clear()
    os.environ.update(request["environment"])
    if address := os.environ.get("HF_ENDPOINT"):
        _ask_another_hub(address.rstrip("/"))
    if home := os.environ.get("HF_HOME"):
        _use_another_cache(os.path.expanduser(home))
    time.tzset()
    tempfile.tempdir = None  # what the imports found without TMPDIR
    os.chdir(request["folder"])
    os.umask(request["umask"])
    for name, limit in request["limits"].items():
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), limit)
    os.sched_setaffinity(0, request["cores"])
    _set_signals(request["ignored"], request["blocked"])
    _rename(request["words"])
    _share_memory()
    if line is not None:
        line.sendall(b"%d\n" % os.getpid())
        line.close()
    _open_streams()
    _run(request["words"][1:])


def find_addresses() -> None:
    """Only once: a fork that looked at every name would copy the memory with the names."""
    hub = sys.modules.get("huggingface_hub.constants")
    cache = hub.HF_HOME if hub else None
    for module in [*sys.modules.values()]:
        for name, value in [*vars(module).items()]:
            if type(value) is str and value.startswith(HUB) and not name.startswith("_HF_DEFAULT"):
                addresses.append((module, name, value.removeprefix(HUB)))
            elif type(value).__name__ == "HfApi" and value.endpoint == HUB:
                clients.append(value)
            elif cache and isinstance(value, str | Path) and str(value).startswith(cache):
                caches.append((module, name, str(value).removeprefix(cache)))


def _ask_another_hub(address: str) -> None:
    """As if the imports had read the address of the test's own hub."""
    for module, name, rest in addresses:
        setattr(module, name, address + rest)
    for client in clients:
        client.endpoint = address


def _use_another_cache(home: str) -> None:
    """As if the imports had read the folder of the test's own cache."""
    for module, name, rest in caches:
        setattr(module, name, type(getattr(module, name))(home + rest))


def _place(descriptors: list[int], numbers: list[int], line: socket.socket | None) -> None:
    """Give each descriptor its number, and close all others except the connection."""
    moved = [fcntl.fcntl(one, fcntl.F_DUPFD, FIRST_FREE) for one in descriptors]
    kept = fcntl.fcntl(line.detach(), fcntl.F_DUPFD_CLOEXEC, FIRST_FREE) if line else -1
    for descriptor, number in zip(moved, numbers, strict=True):
        os.dup2(descriptor, number)
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in (*numbers, kept):
            with contextlib.suppress(OSError):  # of this listing
                os.close(descriptor)
    if line is not None:
        line.__init__(fileno=kept)  # type: ignore[misc]


def _set_signals(ignored: list[int], blocked: list[int]) -> None:
    """As in a new interpreter."""
    always = {signal.SIGPIPE, signal.SIGXFSZ}
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):  # one that the C library reserves
            signal.signal(number, signal.SIG_IGN if number in always or number in ignored else signal.SIG_DFL)
    if signal.SIGINT not in ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def _rename(words: list[str]) -> None:
    """The command line that others see."""
    start, end = ROOM
    text = b"\0".join(map(os.fsencode, words))[: end - start - 1] + b"\0"
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))
    ctypes.CDLL(None).prctl(PR_SET_MM, PR_SET_MM_ARG_END, ctypes.c_ulong(start + len(text)), 0, 0)


def _share_memory() -> None:
    """A preloaded trainer that is idle would copy all that it shares with this template into huge pages of its own."""
    ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def _open_streams() -> None:
    """As in a new interpreter, also under the names that no code should set."""
    streams = {"stdin": _opened(0, "r"), "stdout": _opened(1, "w"), "stderr": _opened(2, "w", "backslashreplace")}
    for name, stream in streams.items():
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _opened(descriptor: int, mode: str, errors: str = "strict") -> IO[Any]:
    return open(descriptor, mode, 1, "utf-8", errors, closefd=False)


def _run(words: list[str]) -> NoReturn:
    """As `python WORDS` does, except for its imports."""
    random.seed()
    if is_trainer:
        popen.install(become)
        become_a_fresh_process()
    # A container has a package of its own, and a rank would inherit what its worker has set in this one.
    if imports in ("trainer", "noop") and (words[0] != str(RUN) or popen.RANK in words):
        for name in [one for one in sys.modules if one.partition(".")[0] == PACKAGE]:
            del sys.modules[name]
    more = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    sys.path[:] = [*map(os.path.abspath, more), *PATH]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    if words[0] == "-P":
        words = words[1:]
    elif words[0] != "-m":
        sys.path.insert(0, os.path.dirname(words[0]))
    if words[0] == "-m":
        sys.argv = words[1:]
        run_to_end(lambda: runpy.run_module(words[1], run_name="__main__", alter_sys=True))
    sys.argv = words
    main = types.ModuleType("__main__")
    main.__file__ = words[0]
    sys.modules["__main__"] = main

    def execute() -> None:
        with open(words[0]) as file:
            program = compile(file.read(), words[0], "exec")
        exec(program, main.__dict__)

    run_to_end(execute)


if __name__ == "__main__":
    sys.path[:] = PATH
    imports = sys.argv[1]
    is_trainer = imports == "trainer"
    connections = socket.socket(fileno=int(sys.argv[2]))
    if is_trainer:
        import_everything()
        from modal_app.warm.preload import become_a_fresh_process
    else:
        {"command": import_command, "wandb": import_wandb, "noop": import_noop}[imports]()
    find_addresses()
    serve(connections)
