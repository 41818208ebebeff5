"""Where a preloaded trainer is found: a socket in a folder that only its user can enter, named by what it serves.

One for each user and store. Its name holds a fingerprint of all that it is made of (trainer, our code, the environment
of its imports), so that a stale one is never talked to: it has another name, and is told to end.
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
"""Of what is said through the socket."""
LONGEST_PATH = 100
"""Bytes; the kernel takes 107 as a socket's address."""
SOCKET = ".sock"
DOOR = "door.lock"


class NoPrivatePlace(Exception):
    """There is no folder for a socket that nobody else could get at. Says why."""


@dataclass(frozen=True, slots=True)
class Address:
    stem: Path

    @property
    def socket(self) -> Path:
        return self.stem.with_name(self.stem.name + SOCKET)

    @property
    def note(self) -> Path:
        """Who listens there: a Note."""
        return self.stem.with_name(self.stem.name + ".json")

    @property
    def log(self) -> Path:
        """What its process says on stderr; removed when it ends in peace."""
        return self.stem.with_name(self.stem.name + ".log")

    @contextlib.contextmanager
    def door(self, *, wait: bool) -> Iterator[bool]:
        """Held by whoever starts a server, connects to one, or takes its socket away: one at a time.

        Yields whether it is held; without `wait` it may not be.
        """
        try:
            descriptor = os.open(self.stem.with_name(DOOR), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            if wait:
                raise
            yield True  # through a folder that is gone nobody comes
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
        """Which socket is there now; None without one."""
        try:
            found = self.socket.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def step_aside(self, *, moving: bool) -> Address:
        """The name by which this process goes from now on, so that there is room for another server. `moving`: socket,
        note and log are this process's own, and go out of the way.
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
    """The servers that have left a note in the folder, dead ones too; those of one store, or of all."""
    prefix = f"{_short(str(store.resolve()))}-" if store else ""
    found = []
    for path in sorted(folder.glob(f"{prefix}*.json")):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # just going, or half written
            raw = json.loads(path.read_text(encoding="utf-8"))
            here = Address(path.with_suffix(""))
            found.append(Note(here, raw["store"], raw["protocol"], Owner(**raw["owner"])))
    return found


def private_folder() -> Path:
    """The folder of this user's sockets, made if need be. Raises NoPrivatePlace."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isdir(runtime) and os.access(runtime, os.W_OK):
        path = Path(runtime) / "axosweep"
        if len(os.fsencode(path)) + 2 * 16 + len(SOCKET) + 2 <= LONGEST_PATH:
            return _made_private(path)
    return _made_private(Path("/tmp") / f"axosweep-{os.getuid()}")


def _made_private(path: Path) -> Path:
    try:
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
    except OSError as error:
        raise NoPrivatePlace(f"{path} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NoPrivatePlace(f"{path} is not a folder that only you can enter")
    return path
