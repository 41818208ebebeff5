"""The process of a local server: a fork of a waiting preloaded trainer, or a new process.

The server ends with this process, however that ends, since its connection then closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from modal_app.process.attempt import base_environment
from modal_app.process.signals import signal_group
from modal_app.process.threads import usable_cores
from modal_app.serving.server import LINE
from modal_app.serving.spec import TOKEN_VARIABLE, Serving
from modal_app.store.hub import is_hub_name
from modal_app.store.sources import RUN
from modal_app.store.step import Device
from modal_app.warm.context import Context
from runner.executors.mixed_workers import why_fresh
from runner.executors.warm_server import TrainerConnection, reach_running
from runner.executors.warm_silence import Silence
from runner.serve.choice import ServeSelection

Events = Iterable[Mapping[str, Any]]
POLL_S = 0.5
"""Between two checks whether a preloaded trainer still answers."""
END_S = 10.0
"""The time that a server has to end before it is killed."""


@contextlib.contextmanager
def serving(
    python: Path, chosen: ServeSelection, place: Path, listening: socket.socket, token: str, max_body: int
) -> Iterator[Events]:
    """The server's events (modal_app.serving.server); when it ends, the last one is `failed`.

    `place`: its folder.
    """
    request = Serving(str(chosen.store.inputs), chosen.models, listening.fileno(), token, max_body, _threads(chosen))
    environment = _environment(chosen)
    fork = _fork(python, chosen, place, environment, listening)
    with _fresh(python, place, environment, request) if fork is None else _forked(fork, request) as events:
        yield events


def _on_cpu(chosen: ServeSelection) -> bool:
    return all(subject.device is Device.CPU for subject in chosen.subjects)


def _threads(chosen: ServeSelection) -> int:
    """All cores that it may use, unless OMP_NUM_THREADS says otherwise: no other process needs them."""
    if not _on_cpu(chosen):
        return 0
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) else usable_cores()


def _environment(chosen: ServeSelection) -> dict[str, str]:
    variables = {**os.environ, **base_environment(Device.CPU if _on_cpu(chosen) else Device.CUDA)}
    variables.pop(TOKEN_VARIABLE, None)
    if not any(is_hub_name(subject.config.get("base_model")) for subject in chosen.subjects):
        variables["HF_HUB_OFFLINE"] = "1"
    return variables


@contextlib.contextmanager
def _fresh(python: Path, place: Path, environment: Mapping[str, str], request: Serving) -> Iterator[Events]:
    server = subprocess.Popen(
        [python, RUN, "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=place,
        env=environment,
        text=True,
        pass_fds=[request.socket],
        start_new_session=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            server.stdin.write(request.to_json() + "\n")
            server.stdin.flush()
        yield _events(server.stdout, server.wait)
    finally:
        with contextlib.suppress(BrokenPipeError):
            server.stdin.close()
        try:
            server.wait(END_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            signal_group(server.pid, signal.SIGKILL)
            server.wait()


@dataclass(frozen=True, slots=True)
class _Fork:
    """A fork of the preloaded trainer that waits for the request to serve."""

    warm: socket.socket
    """The connection to the trainer."""
    line: socket.socket
    """The connection to the fork itself."""
    replies: IO[str]
    """The lines that arrive on `line`."""
    pid: int

    def code(self) -> int | None:
        """Its exit code; None if the trainer, which would know it, has ended."""
        self.warm.settimeout(END_S)
        with contextlib.suppress(OSError), self.warm.makefile("rb") as lines:
            for event in map(json.loads, lines):
                if event["event"] == "ended":
                    return int(event["code"])
        return None


def _fork(
    python: Path, chosen: ServeSelection, place: Path, environment: Mapping[str, str], listening: socket.socket
) -> _Fork | None:
    """None if there is no preloaded trainer, or it may not fork."""
    if any(why_fresh(one.device, one.config) for one in chosen.subjects):
        return None
    reached = reach_running(python, chosen.store.root)
    if reached is None:
        return None
    try:
        fork = _request_fork(reached, place, environment, listening)
    except OSError:  # a path too long for a socket, or a trainer that has just ended
        fork = None
    if fork is None:
        reached.socket.close()
    return fork


def _request_fork(
    reached: TrainerConnection, place: Path, environment: Mapping[str, str], listening: socket.socket
) -> _Fork | None:
    warm = reached.socket
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(place / LINE))
        door.listen(1)
        context = Context.of_this_process(environment).as_json()
        for request in ({"context": context}, {"serve": str(place)}):
            warm.sendall(json.dumps(request).encode() + b"\n")
        unread = b""
        silence = Silence(reached)
        while door not in (readable := select.select([door, warm], [], [], POLL_S)[0]):  # it may still be importing
            if not readable:
                if silence.why_to_give_up(answer_is_due=True):
                    return None
                continue
            silence.end(ready=True)
            block = warm.recv(1 << 16)
            *lines, unread = (unread + block).split(b"\n")
            if not block or any(json.loads(line)["event"] in ("refused", "ended") for line in lines):
                return None
        line, _ = door.accept()
    socket.send_fds(line, [b"\n"], [listening.fileno()])
    replies = line.makefile("r", encoding="utf-8")
    first = replies.readline()
    return _Fork(warm, line, replies, json.loads(first)["pid"]) if first else None


@contextlib.contextmanager
def _forked(fork: _Fork, request: Serving) -> Iterator[Events]:
    with fork.warm, fork.line, fork.replies:
        try:
            with contextlib.suppress(BrokenPipeError):
                fork.line.sendall(f"{request.to_json()}\n".encode())
            yield _events(fork.replies, fork.code)
        finally:
            with contextlib.suppress(OSError):
                fork.line.shutdown(socket.SHUT_WR)
            fork.line.settimeout(END_S)
            try:
                while fork.line.recv(1 << 16):
                    pass
            except (TimeoutError, KeyboardInterrupt):
                signal_group(fork.pid, signal.SIGKILL)
            except ConnectionError:
                pass  # it has ended


def _events(replies: IO[str], code: Callable[[], int | None]) -> Iterator[Mapping[str, Any]]:
    with contextlib.suppress(ConnectionError):
        yield from map(json.loads, replies)
    yield {"event": "failed", "message": f"it ended with code {code()}"}
