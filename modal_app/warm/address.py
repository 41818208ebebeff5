"""The address of a preloaded trainer: a socket in a folder that only its user can enter, named by what it serves.

There is one for each user and store. Its name contains a fingerprint of everything that the trainer depends on (trainer
environment, our code, the variables that imports read). So no command connects to an outdated trainer: it has another
name, and is stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modal_app.store.claim import Owner, this_process
from modal_app.store.flock import lock, try_lock

PROTOCOL = 1
"""The version of the messages on the socket."""
LONGEST_PATH = 100
"""Bytes; the kernel accepts up to 107 as a socket's address."""
SOCKET = ".sock"
DOOR = "door.lock"


class NoPrivatePlace(Exception):
    """There is no folder for a socket that other users cannot reach. Its message says why."""


@dataclass(frozen=True, slots=True)
class Address:
    stem: Path

    @property
    def socket(self) -> Path:
        return self.stem.with_name(self.stem.name + SOCKET)

    @property
    def note(self) -> Path:
        """The file that describes the process that listens: a Note."""
        return self.stem.with_name(self.stem.name + ".json")

    @property
    def log(self) -> Path:
        """The process's stderr; removed when the process ends normally."""
        return self.stem.with_name(self.stem.name + ".log")

    @contextlib.contextmanager
    def door(self, *, wait: bool) -> Iterator[bool]:
        """A lock: only one process at a time may start a server, connect to one, or remove its socket.

        Yields whether this process has the lock; without `wait` it may not.
        """
        try:
            descriptor = os.open(self.stem.with_name(DOOR), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if wait:
                raise
            yield True  # if the folder is gone, no process can connect
            return
        try:
            if wait:
                lock(descriptor)
            yield wait or try_lock(descriptor)
        finally:
            os.close(descriptor)

    def leave_note(self, store: Path) -> None:
        owner = asdict(this_process(""))
        text = json.dumps({"protocol": PROTOCOL, "store": str(store), "owner": owner})
        descriptor = os.open(self.note, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)

    def place(self) -> tuple[int, int] | None:
        """Identifies the socket that exists now; None without one."""
        try:
            found = self.socket.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def step_aside(self, *, moving: bool) -> Address:
        """The address of this process from now on, which frees its old one for another server. `moving`: socket, note
        and log belong to this process, so the socket is removed, and note and log are renamed.
        """
        aside = Address(self.stem.with_name(f"{self.stem.name}.{os.getpid()}"))
        if moving:
            self.socket.unlink(missing_ok=True)
            for old, new in ((self.note, aside.note), (self.log, aside.log)):
                with contextlib.suppress(FileNotFoundError):
                    old.rename(new)
        return aside

    def remove(self, *, log: bool) -> None:
        for path in (self.socket, self.note, *((self.log,) if log else ())):
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Note:
    address: Address
    store: str
    protocol: int
    owner: Owner


def address(folder: Path, store: Path, fingerprint: str) -> Address:
    return Address(folder / f"{_short(str(store.resolve()))}-{fingerprint}")


def fingerprint(parts: Mapping[str, Any]) -> str:
    return _short(json.dumps(parts, sort_keys=True))


def _short(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def notes(folder: Path, store: Path | None) -> list[Note]:
    """The notes in the folder, including those of dead servers; of one store, or of all."""
    prefix = f"{_short(str(store.resolve()))}-" if store else ""
    found = []
    for path in sorted(folder.glob(f"{prefix}*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # being removed, or half written
            raw = json.loads(path.read_text(encoding="utf-8"))
            here = Address(path.with_suffix(""))
            found.append(Note(here, raw["store"], raw["protocol"], Owner(**raw["owner"])))
    return found


def private_folder() -> Path:
    """The folder of this user's sockets, created if necessary. Raises NoPrivatePlace."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime) and os.access(runtime, os.W_OK):
        path = Path(runtime) / "axosweep"
        if len(os.fsencode(path)) + 2 * 16 + len(SOCKET) + 2 <= LONGEST_PATH:
            return _create_private(path)
    return machine_folder()


def machine_folder() -> Path:
    """The one folder of this user on this machine, whatever the environment says, created if necessary. Raises
    NoPrivatePlace."""
    return _create_private(Path("/tmp") / f"axosweep-{os.getuid()}")


def _create_private(path: Path) -> Path:
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        raise NoPrivatePlace(f"{path} cannot be created: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NoPrivatePlace(f"{path} is not a folder that only you can enter")
    return path
