"""A trainer that has imported everything and forks a child per step: `python modal_app/run.py preloaded-trainer`.

Its arguments are --store DIR --address STEM --listen FD. It listens on the socket that its starter has bound
(modal_app.warm.address), for all commands of one user on one store, and ends when no request has arrived for a while.
Messages are JSON objects, one a line. Requests: {"context": ...} (modal_app.warm.context) before all others,
{"step": ...}, {"validate": FOLDER} with questions for the schema (modal_app.oneshot.validate), {"serve": FOLDER} for a
server of models (modal_app.serving.server), {"signal": NUMBER, "kind", "key"}, {"idle_s": SECONDS} and
{"status": true}. Events: ready, started, exited, validated, ended, refused, status.

After SIGTERM it accepts no more commands, and ends when its commands and children have ended. CPU only: a fork of a
process that has initialized CUDA cannot use it, so in that case it refuses.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modal_app.oneshot import validate
from modal_app.process.attempt import base_environment
from modal_app.process.signals import signal_group
from modal_app.serving import server as model_server
from modal_app.store import state
from modal_app.store.layout import Store
from modal_app.store.step import Device, Step, StepKind
from modal_app.warm import huge_pages
from modal_app.warm.address import PROTOCOL, Address
from modal_app.warm.child import fork
from modal_app.warm.connection import AT_ONCE, Command
from modal_app.warm.context import Context
from modal_app.warm.preload import preload, why_not_to_fork
from modal_app.worker import exit_code, lead_a_session

LONGEST_SLEEP_S = 5.0
"""After this time it checks whether its socket and its store still exist."""
SHORTEST_SLEEP_S = 0.05
"""When its idle time is over, but another process has the lock of its address."""
BEGINS = ("step", "validate", "serve")
"""Requests that start a child."""


@dataclass(slots=True)
class Child:
    pid: int
    command: Command
    step: Step | None
    """None for a child that answers questions, or serves."""
    serves: bool = False
    """Whether it serves models; then it notices by itself that its command has ended."""
    since: float = field(default_factory=time.time)


@dataclass(slots=True)
class Server:
    store: Store
    address: Address
    listener: socket.socket
    idle_s: float
    since: float = field(default_factory=time.time)
    commands: list[Command] = field(default_factory=list)
    children: list[Child] = field(default_factory=list)
    ready_s: float | None = None
    """How long the imports took; None until they are done."""
    refusal: str = ""
    ending: bool = False
    served: int = 0
    _place: tuple[int, int] | None = None
    _open: bool = True
    _store_seen: bool = False
    _tidying: Iterator[None] | None = None
    _idle_since: float = field(default_factory=time.monotonic)
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _waker: tuple[socket.socket, socket.socket] = field(default_factory=socket.socketpair)

    def __post_init__(self) -> None:
        self._place = self.address.place()

    def prepare(self) -> None:
        """Run the imports. Until they are done, SIGTERM ends the process, unless a command waits for it."""
        signal.signal(signal.SIGTERM, self._on_sigterm)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))  # its starter has blocked it
        began = time.monotonic()
        os.environ |= base_environment(Device.CPU)
        preload()
        self.refusal = why_not_to_fork()
        self.ready_s = round(time.monotonic() - began, 3)

    def serve(self) -> None:
        """Serve until SIGTERM, or until no request has arrived for `idle_s`."""
        for end in self._waker:
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only signals with a handler are written to the waker
        signal.set_wakeup_fd(self._waker[1].fileno(), warn_on_full_buffer=False)
        self.listener.setblocking(False)
        self._selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._waker[0], selectors.EVENT_READ, self._wake)
        for command in self.commands:
            self._welcome(command)
        while not self._may_end():
            for key, _ in self._selector.select(self._sleep_s()):
                key.data()
            self._reap()
            self._drop_closed()
            self._tidy()

    def _tidy(self) -> None:
        """While it is idle, make the next forks faster. Running children undo some of it, so it starts again later."""
        if self.commands or self.children:
            self._tidying = huge_pages.collapse()
        elif self._tidying is not None and next(self._tidying, self) is self:
            self._tidying = None

    def _sleep_s(self) -> float:
        if self.commands or self.children:
            return LONGEST_SLEEP_S
        if self._tidying is not None:
            return 0.0
        return max(SHORTEST_SLEEP_S, min(LONGEST_SLEEP_S, self._idle_since + self.idle_s - time.monotonic()))

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._waker[0].recv(AT_ONCE)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                command = Command(self.listener.accept()[0])
                self.commands.append(command)
                self._welcome(command)

    def _welcome(self, command: Command) -> None:
        command.socket.setblocking(False)
        if self.refusal:
            command.tell(event="refused", why=self.refusal)
        else:
            command.tell(event="ready", protocol=PROTOCOL, seconds=self.ready_s)
        self._selector.register(command.socket, selectors.EVENT_READ, lambda: self._hear(command))

    def _hear(self, command: Command) -> None:
        for line in command.requests():
            try:
                request = json.loads(line)
                if not (command.gone and any(one in request for one in BEGINS)):  # no command waits for it
                    self._answer(command, request)
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                command.tell(event="refused", why=f"it cannot understand the request ({error!r})")
            except OSError as error:
                command.tell(event="refused", why=f"it cannot fork: {error.strerror}")

    def _answer(self, command: Command, request: dict[str, Any]) -> None:
        match request:
            case {"context": raw}:
                command.context = Context.from_json(raw)
            case {"idle_s": seconds}:
                self.idle_s = float(seconds)
            case {"status": _}:
                command.tell(event="status", **self._status())
            case {"signal": number, "kind": kind, "key": key}:
                self._signal(StepKind(kind), key, number)
            case {"validate": folder}:
                self._begin(command, None, lambda: validate.answered(Path(folder)))
            case {"serve": folder}:
                self._begin(command, None, lambda: model_server.forked(Path(folder))).serves = True
            case {"step": raw}:
                step = Step.from_json(json.dumps(raw))
                child = self._begin(command, step, lambda: exit_code(step, self.store, warm=True))
                command.tell(event="started", kind=step.kind, key=step.key, pid=child.pid)
            case _:
                raise ValueError(f"unknown request {sorted(request)}")

    def _begin(self, command: Command, step: Step | None, work: Callable[[], int]) -> Child:
        if command.context is None:
            raise ValueError("the first request must be a context")
        child = Child(fork(work, command.context, self._cut_off), command, step)
        self.children.append(child)
        self.served += 1
        self._store_seen |= step is not None
        return child

    def _cut_off(self) -> None:
        """In a child: close what belongs to this process. With an open copy of its socket, a command would not end."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        for one in (self.listener, *self._waker, *(command.socket for command in self.commands)):
            one.close()

    def _signal(self, kind: StepKind, key: str, number: int) -> None:
        for child in self.children:
            if child.step is not None and (child.step.kind, child.step.key) == (kind, key):
                signal_group(child.pid, signal.Signals(number))

    def _reap(self) -> None:
        for child in list(self.children):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            self.children.remove(child)
            self._idle_since = time.monotonic()
            code = os.waitstatus_to_exitcode(status)
            if code < 0:  # killed: then no other process ends what it had started
                signal_group(child.pid, signal.SIGKILL)
            if child.step is None:
                child.command.tell(event="ended" if child.serves else "validated", code=code)
                continue
            kind, key = child.step.kind, child.step.key
            state.record_exit(self.store, kind, key, child.pid, code)
            child.command.tell(event="exited", kind=kind, key=key, pid=child.pid, code=code)

    def _drop_closed(self) -> None:
        for command in [one for one in self.commands if one.gone]:
            self._hear(command)  # its last requests
            self._selector.unregister(command.socket)
            command.socket.close()
            self.commands.remove(command)
            if command.context is not None:  # it did more than read the status
                self._idle_since = time.monotonic()
            for child in self.children:
                if child.command is command and child.step is None and not child.serves:
                    signal_group(child.pid, signal.SIGKILL)  # no process will read its answers

    def _may_end(self) -> bool:
        if self._open and (self.ending or self._is_idle()):
            self._close_the_door()
        return not (self._open or self.commands or self.children)

    def _is_idle(self) -> bool:
        if self.commands or self.children:
            return False
        idle_s = time.monotonic() - self._idle_since
        return idle_s >= self.idle_s or not self._is_found() or self._store_is_gone()

    def _store_is_gone(self) -> bool:
        exists = self.store.root.is_dir()
        self._store_seen = self._store_seen or exists
        return self._store_seen and not exists

    def _close_the_door(self) -> None:
        """Remove the socket, so that the next command starts another server. Accepts waiting commands first."""
        with self.address.door(wait=False) as locked:
            if locked:
                self._accept()
            if not locked or (self.commands and not self.ending):
                return
            self._selector.unregister(self.listener)
            self._remove_socket()
            self.listener.close()
            self._open = False

    def _remove_socket(self) -> None:
        """Needs the lock. If the socket belongs to another server by now, so do note and log, and they stay."""
        self.address = self.address.step_aside(moving=self.address.place() in (None, self._place))

    def _is_found(self) -> bool:
        """Whether this server's socket still exists. It may have been removed, or replaced by another server's."""
        return self._place is not None and self.address.place() == self._place

    def _on_sigterm(self, *_: object) -> None:
        self.ending = True
        if self.ready_s is not None:
            return
        with self.address.door(wait=False) as locked:  # a process that has the lock may be about to connect
            if locked and not self._has_waiting_commands():
                self._remove_socket()
                self.address.remove(log=True)
                os._exit(0)

    def _has_waiting_commands(self) -> bool:
        """During the imports: accepts waiting commands."""
        self.listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.commands.append(Command(self.listener.accept()[0]))
        return not all(command.has_hung_up() for command in self.commands)

    def _status(self) -> dict[str, Any]:
        steps = [child for child in self.children if child.step is not None]
        return {
            "since": self.since,
            "ready_s": self.ready_s,
            "idle_s": self.idle_s,
            "idle_for_s": round(time.monotonic() - self._idle_since, 1) if not self.children else 0.0,
            "ending": self.ending,
            "served": self.served,
            "commands": len(self.commands) - 1,  # without the one that sent this request
            "steps": [{"kind": one.step.kind, "key": one.step.key, "pid": one.pid} for one in steps if one.step],
            "serving": [child.pid for child in self.children if child.serves],
        }


def main() -> int:
    parser = argparse.ArgumentParser(description="Fork a worker for each step that is requested through a socket.")
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--address", type=Path, required=True, metavar="STEM")
    parser.add_argument("--listen", type=int, required=True, metavar="FD")
    parser.add_argument("--idle", type=float, default=0.0, metavar="SECONDS")
    args = parser.parse_args()
    lead_a_session()
    for number in (signal.SIGINT, signal.SIGHUP):  # the launcher handles them
        signal.signal(number, signal.SIG_IGN)
    os.chdir(os.sep)
    os.dup2(2, 1)
    store = Store(args.store.resolve())
    server = Server(store, Address(args.address), socket.socket(fileno=args.listen), args.idle)
    server.address.leave_note(store.root)
    sys.argv = sys.argv[:1]
    server.prepare()
    server.serve()
    server.address.remove(log=True)
    return 0
