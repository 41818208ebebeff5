"""Content hashes of local files and folders, remembered for files too big to read at every command."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from modal_app.store import pins
from modal_app.store.content import CircularLink, FileState, file_sha256, files_below, folder_sha256
from modal_app.store.flock import lock
from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.step import write_atomically
from runner.errors import SweepError

ALWAYS_READ_BELOW_BYTES = 64 * 1024 * 1024
"""Smaller files are read every time: a changed file with an old time stamp must not go unnoticed."""
CHANGED = "{} changed after it was hashed. Run the command again."


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
            found = self.states(path)
            is_folder = path.is_dir()
            sums = {name: state.sha256 for name, state in found.items()}
            self._fresh[path] = folder_sha256(sums) if is_folder else sums[path.name]
        return self._fresh[path]

    def states(self, path: Path) -> dict[str, FileState]:
        """Each file of a folder by its name there, or a single file by its own name: as it is now, with its hash.

        SweepError when one cannot be read.
        """
        try:
            if not path.is_dir():
                return {path.name: self._file(path)}
            return {one.relative_to(path).as_posix(): self._file(one) for one in files_below(path)}
        except CircularLink as error:
            raise SweepError(f"{error}.") from error
        except OSError as error:
            raise SweepError(f"{error.filename or path} cannot be read: {error.strerror}.") from error

    def save(self) -> None:
        """Write the hashes of big files to `memory`, if that can be written to: they can be found again."""
        if not self._known:
            return
        with contextlib.suppress(OSError):
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._memory, json.dumps(self._known, indent=1))

    def _file(self, path: Path) -> FileState:
        state = FileState.of(path)
        if state.size < ALWAYS_READ_BELOW_BYTES:
            return state.read(path)
        mark = [state.size, state.mtime_ns, state.inode]
        known = self._known.get(str(path))
        if known is None or known[:3] != mark:
            known = self._known[str(path)] = [*mark, file_sha256(path)]
        return replace(state, sha256=str(known[3]))


def keep(source: Path, identity: str, target: Path, hashes: ContentHashes) -> None:
    """Put a local input into the store: a copy of a file, a link to a folder.

    A file is copied, so that the run trains on the content that was hashed, even if the user edits the file meanwhile.
    Folders (base models) are linked because of their size. Each link has a note of its files' states, by which an edit
    is noticed before the folder is loaded (modal_app.store.pins). `keep_folder` copies a folder.
    Raises SweepError if the content no longer has this identity.
    """
    source = source.expanduser().absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        _link(source.resolve(), identity, target, hashes)  # a config of this store may name the link itself
        return
    if pins.as_noted(target) == identity:
        return
    state = FileState.of(target).read(target) if target.is_file() else None
    if state is None or state.sha256 != identity:
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copyfile(source, temporary)
        state = FileState.of(temporary).read(temporary)
        if state.sha256 != identity:
            temporary.unlink()
            raise SweepError(CHANGED.format(source))
        temporary.replace(target)
    pins.write_note(target, {target.name: state})


def _link(source: Path, identity: str, target: Path, hashes: ContentHashes) -> None:
    """Always replace the link: the folder that an older link names may have been edited since."""
    states = hashes.states(source)
    if pins.content_sha256(source, states) != identity:
        raise SweepError(CHANGED.format(source))
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(source)
    temporary.replace(target)
    pins.write_note(target, states)


def keep_folder(source: Path, identity: str, target: Path) -> None:
    """Put a small folder (an adapter, files of tasks) into the store as a copy, for the same reason as a file.

    Raises SweepError if its content is not the one of `identity` any more.
    """
    source, files = source.expanduser().resolve(), {}
    with contextlib.suppress(FileNotFoundError):  # a missing file is a change, which the check finds
        files = {path.relative_to(source).as_posix(): path for path in files_below(source)}
    keep_files(files, identity, target, source)


def keep_files(files: Mapping[str, Path], identity: str, target: Path, source: object) -> None:
    """The same for files from anywhere, by their names in the folder. `source`: their name in an error."""
    if not target.is_symlink() and _identity_of(target) == identity:
        return
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    with contextlib.suppress(FileNotFoundError):  # found below, too
        for name, path in files.items():
            copy = temporary / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
    if _identity_of(temporary) != identity:
        shutil.rmtree(temporary)
        raise SweepError(CHANGED.format(source))
    if target.is_symlink():
        target.unlink()  # an older version has linked it
    put_folder(temporary, target, lambda: _identity_of(target) == identity)


def put_folder(copy: Path, target: Path, is_good: Callable[[], bool]) -> None:
    """Move a complete copy to its place, unless another launch has put one there meanwhile, which its run may be
    reading. `is_good`: whether `target` is a complete copy now."""
    with contextlib.suppress(OSError):  # something is there
        copy.replace(target)
        return
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems lock no folders
            lock(descriptor)  # or two launches find one damaged copy, and the second removes the good one of the first
        if not is_good():
            shutil.rmtree(target, ignore_errors=True)
        try:
            copy.replace(target)
        except OSError:
            if not is_good():
                raise
            shutil.rmtree(copy)
    finally:
        os.close(descriptor)


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
