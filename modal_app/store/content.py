"""Files and folders by content: their sha256, and the state that a file was in when it was read. Standard library."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from modal_app.store.durable import flush


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was at one moment. If its size, time stamp and inode are the same later, so is its content."""

    size: int
    mtime_ns: int
    inode: int
    sha256: str = ""
    """Hex; empty while the content has not been read."""

    @classmethod
    def of(cls, path: Path) -> Self:
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ino)

    @classmethod
    def from_json(cls, raw: object) -> Self | None:
        """None for what `as_json` has not written."""
        match raw:
            case {"size": int(size), "mtime_ns": int(mtime_ns), "inode": int(inode), "sha256": str(sha256)}:
                return cls(size, mtime_ns, inode, sha256)
        return None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def is_as(self, other: FileState) -> bool:
        """Whether the file has not been written or replaced between the two moments."""
        return (self.size, self.mtime_ns, self.inode) == (other.size, other.mtime_ns, other.inode)

    def read(self, path: Path) -> FileState:
        """Returns the state with the content's hash. The state is taken first, so that a change during the reading
        shows in the next state."""
        return replace(self, sha256=file_sha256(path))


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flushed_sha256(path: Path) -> str:
    """The same, once the bytes are on the disk: the files in a marker or a manifest must survive a power cut."""
    with path.open("rb") as file:
        flush(file.fileno(), path)
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush_folders(folder: Path) -> None:
    """Write the names of the files in a folder, and in the folders below it, to the disk."""
    for name, _, _ in os.walk(folder):
        descriptor = os.open(name, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # not every file system can do it
                flush(descriptor, Path(name))
        finally:
            os.close(descriptor)


def folder_sha256(files: Mapping[str, str]) -> str:
    """Hex sha256 of a folder: of its files' names there and their own sha256."""
    digest = hashlib.sha256()
    for name in sorted(files, key=lambda name: Path(name).parts):
        digest.update(f"{name}\0{files[name]}\n".encode())
    return digest.hexdigest()


class CircularLink(OSError):
    """A folder contains a link to a folder that contains it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} is a link to a folder that contains it; remove the link")


def files_below(folder: Path) -> Iterator[Path]:
    """The files of a folder that its content consists of: no hidden ones, and those in linked folders, too, since what
    reads the folder follows links. Raises CircularLink, or another OSError for what cannot be listed."""
    for name, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        place = Path(name)
        if place.is_symlink() and any(place.samefile(above) for above in place.parents):
            raise CircularLink(place)
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        visible = (place / name for name in files if not name.startswith((".", "__pycache__")))
        yield from (path for path in visible if path.is_file())


def _raise(error: OSError) -> None:
    raise error
