"""Finds, starts and ends the preloaded trainer of this user and store. The trainer itself is modal_app.warm.server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modal_app.process.attempt import base_environment
from modal_app.store.sources import RUN, source_digest
from modal_app.store.step import Device
from modal_app.warm.address import (
    PROTOCOL,
    SOCKET,
    Address,
    NoPrivatePlace,
    Note,
    address,
    fingerprint,
    notes,
    private_folder,
)
from modal_app.warm.context import import_environment, limits
from runner.environment import trainer_environment

VARIABLE = "AXOSWEEP_WARM_IDLE_S"
IDLE_S = 300.0
"""Long enough to look at a table and launch again."""
ANSWER_WITHIN_S = 1.0
DAY_S = 86_400.0
JOB = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
"""A process of a batch job shares the job's limits and accounting."""

INSTALLED = (".dist-info", ".egg-info", ".egg-link", ".pth")
"""The suffixes of what installers leave next to a package."""


class WarmRefused(Exception):
    """No preloaded trainer can be used, though fresh processes may work. Its text is the reason."""


@dataclass(slots=True)
class TrainerConnection:
    """A connection to a preloaded trainer, which may still be importing."""

    socket: socket.socket
    address: Address
    process: subprocess.Popen[bytes] | None
    """Of a trainer that was started for this connection."""


def idle_limit(configured: float | None) -> float:
    """Seconds that a preloaded trainer waits for the next command: as configured, or AXOSWEEP_WARM_IDLE_S, or five
    minutes.

    A value that is not a number is ignored; preflight reports one in the config.
    """
    for one in (configured, os.environ.get(VARIABLE)):
        with contextlib.suppress(TypeError, ValueError):
            return max(0.0, float(one))  # type: ignore[arg-type]  # whatever a user has written
    return IDLE_S


def reach(python: Path, store: Path, idle_s: float) -> TrainerConnection:
    """Connect to the matching preloaded trainer, starting one where there is none. Raises WarmRefused."""
    try:
        here = address(private_folder(), store, trainer_fingerprint(python))
        with here.door(wait=True):
            connected = _connect(here)
            if connected is not None:
                return TrainerConnection(connected, here, None)
            _clear_away(here)
            reached = _start(here, python, store, idle_s)
            _retire_others(here, store)
            return reached
    except (NoPrivatePlace, OSError) as error:
        raise WarmRefused(str(error)) from error


def reach_running(python: Path, store: Path) -> TrainerConnection | None:
    """Connect to the matching preloaded trainer, if there is one."""
    try:
        here = address(private_folder(), store, trainer_fingerprint(python))
        with here.door(wait=True):
            connected = _connect(here)
    except (NoPrivatePlace, OSError):
        return None
    return None if connected is None else TrainerConnection(connected, here, None)


def running(store: Path | None) -> list[Note]:
    """The preloaded trainers of this user: of one store, or of all."""
    try:
        found = notes(private_folder(), store)
    except NoPrivatePlace:
        return []
    return [note for note in found if is_alive(note)]


def is_alive(note: Note) -> bool:
    """A trainer that has ended is not alive, even if its launcher has not reaped it yet."""
    return note.owner.is_alive() and process_state(note.owner.pid) != "Z"


def process_state(pid: int) -> str:
    """The state as Linux shows it, such as R, S, T (suspended) or Z (ended); empty if it is not known."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def status(note: Note) -> Mapping[str, Any] | None:
    """Its own status report; None while it imports, or when it has another protocol version."""
    if note.protocol != PROTOCOL:
        return None
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER_WITHIN_S)
        line.connect(str(note.address.socket))
        line.sendall(b'{"status": true}\n')
        for text in line.makefile("rb"):
            event: dict[str, Any] = json.loads(text)
            if event.pop("event") == "status":
                return event
    return None


def tell_to_end(note: Note) -> None:
    """It ends at once if no command uses it, otherwise after the last command. A suspended one continues for that."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(note.owner.pid, signal.SIGTERM)
        os.kill(note.owner.pid, signal.SIGCONT)


def wait_for_end(note: Note, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(note):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _connect(here: Address) -> socket.socket | None:
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(str(here.socket))
    except (FileNotFoundError, ConnectionRefusedError):
        line.close()
        return None
    except BaseException:
        line.close()
        raise
    return line


def _start(here: Address, python: Path, store: Path, idle_s: float) -> TrainerConnection:
    """The socket is bound here, so that the next command finds it before the process has started."""
    with socket.socket(socket.AF_UNIX) as listener, here.log.open("wb") as log:
        listener.bind(str(here.socket))
        listener.listen(128)
        connected = _connect(here)
        assert connected is not None
        options = {"--store": store, "--address": here.stem, "--listen": listener.fileno(), "--idle": idle_s}
        with _delayed(signal.SIGTERM):  # until it knows whether another command also waits for it
            process = subprocess.Popen(
                [python, RUN, "preloaded-trainer", *(str(word) for option in options.items() for word in option)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                cwd=os.sep,
                start_new_session=True,
                pass_fds=(listener.fileno(),),
            )
    return TrainerConnection(connected, here, process)


@contextlib.contextmanager
def _delayed(number: signal.Signals) -> Iterator[None]:
    """Block a signal for this thread until the block ends, and for processes started here until they unblock it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (number,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _retire_others(here: Address, store: Path) -> None:
    """End trainers of another environment, lock or version of the code: no command will use them again."""
    for note in notes(here.stem.parent, store):
        if note.address != here and is_alive(note):
            tell_to_end(note)


def _clear_away(here: Address) -> None:
    """Remove what killed trainers of any store left behind; their logs after a day."""
    for path in here.stem.parent.glob(f"*{SOCKET}"):
        dead = Address(path.with_suffix(""))
        if (line := _connect(dead)) is not None:
            line.close()
        else:
            dead.remove(log=False)
    for note in notes(here.stem.parent, None):
        if not is_alive(note):
            note.address.remove(log=False)
    for log in here.stem.parent.glob("*.log"):
        if not Address(log.with_suffix("")).socket.exists() and time.time() - log.stat().st_mtime > DAY_S:
            log.unlink(missing_ok=True)


def _environment() -> dict[str, str]:
    return import_environment({**os.environ, **base_environment(Device.CPU)})


def trainer_fingerprint(python: Path) -> str:
    """Identifies what a preloaded trainer was started from: a command uses only one whose fingerprint is equal."""
    return fingerprint(
        {
            "protocol": PROTOCOL,
            "python": str(python),
            "trainer": [trainer_environment.lock_hash(), trainer_environment.built_from(), *_contents(python)],
            "code": source_digest(),
            "environment": _environment(),
            "niceness": os.nice(0),
            "limits": {name: hard for name, (_, hard) in limits().items()},
            "job": [os.environ.get(name) for name in JOB],
        }
    )


def _contents(python: Path) -> Iterator[tuple[str, int]]:
    """The names of what is in an environment, and when each package was installed: the lock does not show changes made
    by hand. The folder's own time is left out, since the first import writes bytecode there.
    """
    if python.exists():
        yield python.name, python.stat().st_mtime_ns
    for folder in sorted(python.parent.parent.glob("lib/python*/site-packages")):
        for entry in sorted(os.scandir(folder), key=lambda one: one.name):
            if entry.name != "__pycache__":
                yield entry.name, entry.stat(follow_symlinks=False).st_mtime_ns if entry.name.endswith(INSTALLED) else 0
