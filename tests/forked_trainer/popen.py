"""A `subprocess.Popen` that requests a fork where it would start the trainer's Python. Standard library only.

A process is started as usual if it is no trainer's, if there is no broker, or if the broker has no process with the
imports of such an environment, or one that has died. A fork is not this process's child: its end is read from a socket.
But a rank is a child of its worker, since it ends with it; if that is a fork itself, it forks its ranks.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

BROKER = "AXOSWEEP_TESTS_BROKER"
"""The variable with the broker's name, an abstract socket, which containers reach as well."""
PROGRAMS = (
    "modal_app/run.py", "tests/conf/verdicts.py", "tests/conf/tokenized_rows.py", "tests/good_configs/verdicts.py",
    "tests/modal_app/optimizers_on_cpu_script.py", "tests/runner/memory_counter.py",
    "tests/runner/sharding_counter.py", "tests/modal_app/row_rater_script.py", "tests/modal_app/generation_cases.py",
    "tests/modal_app/axolotl_refusals_script.py", "tests/modal_app/random_states_script.py",
    "tests/modal_app/recorder_script.py",
    "tests/modal_app/patches/library_script.py", "tests/modal_app/patches/fresh_schedule_script.py",
    "tests/modal_app/patches/other_version_script.py",
    "tests/end_to_end/vision_model_script.py",
    "tests/end_to_end/logit_distances_script.py", "modal_app/trainer/list_fields.py",
    "modal_app/trainer/list_modules.py", "tests/modal_app/claimed_gpu.py",
)  # fmt: skip
"""Programs that are started as forks: the trainer, and scripts that only need Axolotl's imports."""
RANK = "--rank"
COMMAND = "tests/forked_trainer/command_script.py"
"""The launcher's command line, started as a fork by processes that know a broker."""
WANDB = (
    "runner.wandb.process", "tests/wandb_server/log_runs_script.py", "tests/wandb_server/read_script.py",
    "tests/wandb_server/train_script.py", "tests/end_to_end/wandb_group_script.py",
    "tests/modal_app/tracked_run_script.py",
)  # fmt: skip
"""Programs of the launcher's Python that import W&B's SDK."""
NOOP = ("root/modal_app/run.py",)
"""The worker of the containers that have the launcher's Python: modal_server/noop_worker.py."""
READY = b"y"
LOST = b"-9"

RealPopen = subprocess.Popen
Become = Callable[[dict[str, Any], list[int]], NoReturn]
_broker = ""
_become: Become | None = None


def install(become: Become | None = None) -> None:
    """Replace Popen from now on, in this process and its forks. `become`: in a process with the trainer's imports, the
    function with which a fork becomes the process of a request, with these descriptors. A worker needs it for its
    ranks only, and no broker, whose name a container does not pass on. An empty name refuses all forks."""
    global _broker, _become
    _broker = os.environ.get(BROKER, "")
    _become = None if os.environ.get(BROKER) == "" else become
    subprocess.Popen = ForkingPopen  # type: ignore[misc]


class ForkingPopen(RealPopen):  # type: ignore[type-arg]
    _line: socket.socket | None = None

    def _execute_child(self, args: Any, executable: Any, *rest: Any) -> None:
        words = [args] if isinstance(args, str | bytes | os.PathLike) else list(args)
        (_, _, pass_fds, cwd, env, _, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite) = rest[:14]
        start_new_session = rest[19]
        pid = b""
        if _is_trainer(words) or _is_command(words, os.environ if env is None else env) or _is_wandb(words):
            streams = [own if given == -1 else given for own, given in enumerate((p2cread, c2pwrite, errwrite))]
            request = describe(words, cwd, os.environ if env is None else env, start_new_session, pass_fds)
            if RANK not in words:
                self._line = _connect(request, [*streams, *pass_fds])
                pid = _line_of(self._line) if self._line else b""
            elif _become is not None:
                pid = b"%d" % _fork(request, [*streams, *pass_fds], _become)
        if not pid:
            self._line = None
            super()._execute_child(args, executable, *rest)  # type: ignore[misc]
            return
        self.pid = int(pid)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]

    def _internal_poll(self, *arguments: Any, **named: Any) -> int | None:
        if self._line is None:
            return super()._internal_poll(*arguments, **named)  # type: ignore[misc,no-any-return]
        self._receive(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._line is None:
            return super()._wait(timeout)  # type: ignore[misc,no-any-return]
        if not self._receive(timeout):
            assert timeout is not None
            raise subprocess.TimeoutExpired(self.args, timeout)
        assert self.returncode is not None
        return self.returncode

    def _receive(self, timeout: float | None) -> bool:
        if self.returncode is not None:
            return True
        assert self._line is not None
        poll = select.poll()
        poll.register(self._line, select.POLLIN)
        if not poll.poll(None if timeout is None else max(0, timeout * 1000)):
            return False
        self.returncode = int(_line_of(self._line) or LOST)
        self._line.close()
        return True


def describe(
    words: Sequence[Any], folder: Any, environment: Any, new_session: bool, passed: Sequence[int]
) -> dict[str, Any]:
    """What a new process inherits from this one."""
    return {
        "words": [os.fspath(word) for word in words],
        "folder": os.fspath(folder) if folder else os.getcwd(),
        "environment": {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
        "new_session": new_session,
        "descriptors": [0, 1, 2, *passed],
        "umask": _umask(),
        "limits": {
            name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")
        },
        "cores": sorted(os.sched_getaffinity(0)),
        "ignored": [int(one) for one in signal.valid_signals() if signal.getsignal(one) is signal.SIG_IGN],
        "blocked": [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, ())],
    }


def send(line: socket.socket, value: Any, descriptors: Sequence[int] = ()) -> None:
    body = json.dumps(value).encode()
    socket.send_fds(line, [struct.pack("!I", len(body))], list(descriptors))
    line.sendall(body)


def receive(line: socket.socket) -> tuple[Any, list[int]]:
    """Receive what `send` has sent. Raises ConnectionError."""
    header, descriptors, _, _ = socket.recv_fds(line, 4, 64)
    if len(header) < 4:
        raise ConnectionError("the other side has hung up")
    body = b""
    while len(body) < (size := struct.unpack("!I", header)[0]):
        part = line.recv(size - len(body))
        if not part:
            raise ConnectionError("the other side has hung up")
        body += part
    return json.loads(body), descriptors


def _is_trainer(words: Sequence[Any]) -> bool:
    may_fork = _become is not None if RANK in words else bool(_broker)
    return (
        may_fork and len(words) > 1 and os.fspath(words[1]).endswith(PROGRAMS) and sys.platform == "linux"
    )  # fmt: skip


def _is_command(words: Sequence[Any], environment: Any) -> bool:
    return (
        bool(_broker and environment.get(BROKER)) and len(words) > 1 and os.fspath(words[1]).endswith(COMMAND)
        and sys.platform == "linux"
    )  # fmt: skip


def _is_wandb(words: Sequence[Any]) -> bool:
    return bool(_broker) and sys.platform == "linux" and "".join(after_options(words)[:1]).endswith(WANDB)


def after_options(words: Sequence[Any]) -> list[str]:
    """The script or the module of a command line of Python, and its arguments."""
    return list(itertools.dropwhile(lambda word: word in ("-P", "-m"), map(os.fsdecode, words[1:])))


def _fork(request: dict[str, Any], descriptors: list[int], become: Become) -> int:
    """A child of this process."""
    pid = os.fork()
    if pid == 0:
        try:
            become(request, descriptors)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    return pid


def _connect(request: dict[str, Any], descriptors: Sequence[int]) -> socket.socket | None:
    line = socket.socket(socket.AF_UNIX)
    with contextlib.suppress(OSError):
        line.connect(f"\0{_broker}")
        python = request["words"][0]
        program, *verb = after_options(request["words"])[:2]
        send(line, {"words": [python, program, *verb], "environment": request["environment"]})
        if line.recv(1) == READY:
            send(line, request, descriptors)
            return line
    line.close()
    return None


def _line_of(line: socket.socket) -> bytes:
    """Read up to the end of a line; empty if the other side has closed the connection."""
    read = b""
    while not read.endswith(b"\n"):
        part = line.recv(1)
        if not part:
            return b""
        read += part
    return read.strip()


def _umask() -> int:
    with open("/proc/self/status") as status:
        return next((int(line.split()[1], 8) for line in status if line.startswith("Umask:")), 0o022)
