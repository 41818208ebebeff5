"""Content hashes of local files and folders, remembered for files too big to read at every command."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import write_atomically
from runner.errors import SweepError

ALWAYS_READ_BELOW_BYTES = 64 * 1024 * 1024
"""Smaller files are read every time: a changed file with an old time stamp must not go unnoticed."""


class ContentHashes:
    """sha256 of files and folders. `memory` is a JSON file that may be deleted at any time."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory
        self._known: dict[str, list[object]] = read_json(memory, lenient=True)
        self._fresh: dict[Path, str] = {}

    def of(self, path: Path) -> str:
        """Hex sha256 of a file's bytes, or of a folder's names and contents (hidden names left out).

        SweepError when it cannot be read.
        """
        path = path.absolute()
        if path not in self._fresh:
            try:
                self._fresh[path] = self._folder(path) if path.is_dir() else self._file(path)
            except OSError as error:
                raise SweepError(f"{error.filename or path} cannot be read: {error.strerror}.") from error
        return self._fresh[path]

    def save(self) -> None:
        """Write the hashes of big files to `memory`, if that can be written to: they can be found again."""
        if not self._known:
            return
        with contextlib.suppress(OSError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._memory, json.dumps(self._known, indent=1))

    def _folder(self, folder: Path) -> str:
        digest = hashlib.sha256()
        for path in sorted(files_below(folder)):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{self._file(path)}\n".encode())
        return digest.hexdigest()

    def _file(self, path: Path) -> str:
        stat = path.stat()
        if stat.st_size < ALWAYS_READ_BELOW_BYTES:
            return file_sha256(path)
        mark = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        known = self._known.get(str(path))
        if known is None or known[:3] != mark:
            known = self._known[str(path)] = [*mark, file_sha256(path)]
        return str(known[3])


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep(source: Path, identity: str, target: Path) -> None:
    """Put a local input into the store: a copy of a file, a link to a folder.

    A file is copied, so that the run trains on the content that was hashed, even if the user edits the file meanwhile.
    Folders (base models) are linked because of their size; `keep_folder` copies one.
    Raises SweepError when a file has changed since it was hashed.
    """
    source = source.expanduser().absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        # A config of this store names the store's own link, which must not be linked to itself.
        source = source.resolve()
        # Always replace the link: the folder that an older link names may have been edited since.
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(source)
        temporary.replace(target)
        return
    if target.is_file() and file_sha256(target) == identity:
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copyfile(source, temporary)
    if file_sha256(temporary) != identity:
        temporary.unlink()
        raise SweepError(f"{source} was changed while it was read. Run the command again.")
    temporary.replace(target)


def keep_folder(source: Path, identity: str, target: Path) -> None:
    """Put a small folder (an adapter, files of tasks) into the store as a copy, for the same reason as a file.

    Raises SweepError when it changed since it was hashed.
    """
    if not target.is_symlink() and _identity_of(target) == identity:
        return
    source = source.expanduser().resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with contextlib.suppress(FileNotFoundError):  # a missing file is a change, which the check below finds
        for path in files_below(source):
            copy = temporary / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    if _identity_of(temporary) != identity:
        shutil.rmtree(temporary)
        raise SweepError(f"{source} was changed while it was read. Run the command again.")
    if target.is_symlink():
        target.unlink()  # an older version has linked it
    shutil.rmtree(target, ignore_errors=True)
    temporary.replace(target)


def _identity_of(folder: Path) -> str | None:
    """The hash of its current content; None if there is no such folder."""
    return ContentHashes(Path(os.devnull)).of(folder) if folder.is_dir() else None


def keep_in(store: Store, local: Path) -> str:
    """Copy a small folder into the store, named by its content; returns the path below the store's root."""
    hashes = ContentHashes(store.cache / "hashes.json")
    identity = hashes.of(local.resolve())
    hashes.save()
    name = f"{store.inputs.name}/{identity}"
    keep_folder(local, identity, store.root / name)
    return name


def files_below(folder: Path) -> Iterator[Path]:
    """The files that a folder's identity covers: no hidden ones, but those in linked folders, too, since the trainer
    follows links. Raises SweepError for a link to a folder that contains it."""
    for name, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        place = Path(name)
        if place.is_symlink() and any(place.samefile(above) for above in place.parents):
            raise SweepError(f"{place} is a link to a folder that contains it. Remove the link.")
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        visible = (place / name for name in files if not name.startswith((".", "__pycache__")))
        yield from (path for path in visible if path.is_file())


def _raise(error: OSError) -> None:
    raise error
