"""Fetches files of a run into a folder of the user: each only once, checked, and without replacing other files.

Each file is fetched as `.NAME.part`, checked, and only then renamed. A journal in the folder says where each file comes
from and which were begun. So the same command continues where a killed one ended: a complete file is not fetched again,
and a partial one is continued at its last byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path, PurePosixPath
from typing import IO, Any

from modal_app.store.content import file_sha256
from modal_app.store.flock import try_lock
from modal_app.store.full_disk import FULL
from modal_app.store.step import write_atomically
from runner.console.transfer import size_text
from runner.errors import SweepError
from runner.files.run_files import Entry, Files

JOURNAL = ".axosweep-pull.json"
SHOWN = 5
"""The most files that a message names."""
AWAY = "Nothing was fetched. Move it away, or name another folder."


@dataclass(frozen=True, slots=True)
class FileToPull:
    entry: Entry
    to: str
    """Its name below the folder."""
    sha256: str | None = None
    """As recorded by the worker that wrote it."""


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """The journal's entry for a file that is here."""

    source: str
    size: int
    mtime: float
    """The source's."""
    sha256: str
    checked: bool
    """Whether the worker that wrote it has recorded the same checksum."""


@dataclass(slots=True)
class PullResult:
    fetched: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    """Files that were complete and current already."""
    bytes: int = 0
    """Fetched by this command."""
    unchecked: list[str] = field(default_factory=list)
    """Files for which no checksum was recorded."""


class _Now(Enum):
    """What the folder has under a wanted file's name."""

    NOTHING = "nothing"
    THE_FILE = "the file"
    AN_OLDER = "an older version that we fetched"
    ANOTHER = "another file"


def pull(
    files: Files, wanted: Sequence[FileToPull], folder: Path, *, force: bool = False, watch: Callable[[int], None]
) -> PullResult:
    """Fetch the wanted files into the folder. `watch` is called with the number of new bytes; bytes that are here
    already count, too.

    Raises SweepError, before anything is fetched, when the folder has other files of these names (unless `force`), a
    folder in the place of a file or the reverse, or no room; also when a file cannot be read or written, or does not
    have its recorded checksum.
    """
    for one in wanted:
        assert not {"..", "/"} & set(PurePosixPath(one.to).parts), one.to
    with _locked(folder):
        _refuse_in_the_way(folder, wanted)
        journal, done = _Journal.read(folder), PullResult()
        now = {one.to: _found(one, folder, journal) for one in wanted}
        if others := [one.to for one in wanted if now[one.to] is _Now.ANOTHER and not force]:
            raise SweepError(
                f"{folder} has other files of these names: {_some(others)}. Nothing was fetched. Name another folder, "
                "or replace them with --force."
            )
        missing = [one for one in wanted if now[one.to] is not _Now.THE_FILE]
        _refuse_no_room(folder, missing, journal)
        done.here = [one.to for one in wanted if now[one.to] is _Now.THE_FILE]
        watch(sum(one.entry.size for one in wanted if now[one.to] is _Now.THE_FILE))
        with _disk_full_explained(folder, done, len(wanted)):
            for one in missing:
                journal.has(one.to, _fetch(files, one, folder, journal, done, watch))
                done.fetched.append(one.to)
            for one in wanted:
                if one.to not in journal.files:  # was here before there was a journal
                    journal.has(one.to, _received(one, file_sha256(folder / one.to)))
        done.unchecked = [one.to for one in wanted if not journal.files[one.to].checked]
    return done


@dataclass(slots=True)
class _Journal:
    path: Path
    files: dict[str, ReceivedFile]
    begun: dict[str, dict[str, Any]]
    """Name -> the source of its `.part`."""

    @classmethod
    def read(cls, folder: Path) -> _Journal:
        path = folder / JOURNAL
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            files = {to: ReceivedFile(**one) for to, one in raw["files"].items()}
            return cls(path, files, dict(raw["begun"]))
        except FileNotFoundError:
            return cls(path, {}, {})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise SweepError(
                f"{path} was not written by axosweep pull ({error}). Remove it, or name another folder."
            ) from error

    def begins(self, one: FileToPull) -> None:
        if self.begun.get(one.to) != asdict(one.entry):
            self.begun[one.to] = asdict(one.entry)
            self._write()

    def has(self, to: str, received: ReceivedFile) -> None:
        self.begun.pop(to, None)
        self.files[to] = received
        self._write()

    def _write(self) -> None:
        files = {to: asdict(one) for to, one in sorted(self.files.items())}
        write_atomically(self.path, json.dumps({"files": files, "begun": self.begun}, indent=1))


def _refuse_in_the_way(folder: Path, wanted: Sequence[FileToPull]) -> None:
    for one in wanted:
        path = folder / one.to
        above = [place for place in path.parents if folder in place.parents]
        files = [place for place in above if os.path.lexists(place) and not place.is_dir()]
        if path.is_dir() and not path.is_symlink():
            raise SweepError(f"{path} is in the way: it is a folder, and a file of that name is to be fetched. {AWAY}")
        if files:
            raise SweepError(f"{files[0]} is in the way: it is not a folder, and {one.to} is to be fetched. {AWAY}")


def _found(one: FileToPull, folder: Path, journal: _Journal) -> _Now:
    path = folder / one.to
    if not os.path.lexists(path):
        return _Now.NOTHING
    if not path.is_file():
        return _Now.ANOTHER
    ours, digest = journal.files.get(one.to), file_sha256(path)
    if ours is not None and digest == ours.sha256:
        same = (ours.source, ours.size, ours.mtime) == (one.entry.path, one.entry.size, one.entry.mtime)
        return _Now.THE_FILE if same or digest == one.sha256 else _Now.AN_OLDER
    return _Now.THE_FILE if digest == one.sha256 else _Now.ANOTHER


def _fetch(
    files: Files, one: FileToPull, folder: Path, journal: _Journal, done: PullResult, watch: Callable[[int], None]
) -> ReceivedFile:
    path = folder / one.to
    part = _part(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    resume = journal.begun.get(one.to) == asdict(one.entry) and part.exists() and part.stat().st_size <= one.entry.size
    journal.begins(one)
    digest = _write(files, one, part, done, watch, resume=resume)
    if resume and one.sha256 not in (None, digest):
        digest = _write(files, one, part, done, watch, resume=False)  # a crash may leave any bytes in the part
    if one.sha256 not in (None, digest):
        part.unlink()
        raise SweepError(
            f"{files.place(one.entry.path)} does not have the checksum that its run has recorded: it was damaged or "
            "changed there. The download was deleted."
        )
    part.replace(path)
    return _received(one, digest)


def _write(
    files: Files, one: FileToPull, part: Path, done: PullResult, watch: Callable[[int], None], *, resume: bool
) -> str:
    """Write the source's bytes into the part, with `resume` only those that it lacks; returns the sha256 of all."""
    digest = hashlib.sha256()
    with part.open("r+b" if resume else "wb") as file:
        if resume:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        at = file.tell()
        watch(at)
        for chunk in _read(files, one.entry.path, at) if at < one.entry.size else ():
            needed = chunk[: one.entry.size - at]  # a log may have grown since it was listed
            file.write(needed)
            digest.update(needed)
            at += len(needed)
            done.bytes += len(needed)
            watch(len(needed))
            if at == one.entry.size:
                break
        _flush(file)
    if at < one.entry.size:
        raise SweepError(f"{files.place(one.entry.path)} became shorter while it was read. Run the command again.")
    return digest.hexdigest()


def _read(files: Files, path: str, start: int) -> Iterator[bytes]:
    try:
        yield from files.read(path, start)
    except FileNotFoundError as error:  # a run removes its old checkpoints
        raise SweepError(f"{files.place(path)} was removed while it was read. Run the command again.") from error


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _received(one: FileToPull, digest: str) -> ReceivedFile:
    entry = one.entry
    return ReceivedFile(entry.path, entry.size, entry.mtime, digest, checked=one.sha256 == digest)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _refuse_no_room(folder: Path, missing: Sequence[FileToPull], journal: _Journal) -> None:
    free = shutil.disk_usage(folder).free
    parts = [(one, _part(folder / one.to)) for one in missing if one.to in journal.begun]
    needed = sum(one.entry.size for one in missing)
    needed -= sum(min(part.stat().st_size, one.entry.size) for one, part in parts if part.exists())
    if needed > free:
        raise SweepError(
            f"{folder} has room for {size_text(free)}, but the files need {size_text(needed)}. Nothing was fetched. "
            "Make room, or name a folder on another disk."
        )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Create the folder and keep other pulls out of it. If an error leaves a new folder empty, it is removed."""
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SweepError(f"{folder} is not a folder, or is below a file. Name another folder to pull to.") from None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(descriptor):
            raise SweepError(f"Another axosweep pull works in {folder}. Wait for it, or name another folder.")
        yield
    except SweepError:
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_full_explained(folder: Path, done: PullResult, number: int) -> Iterator[None]:
    """Raises SweepError for a disk that has become full. Fetched files stay, and are not fetched again."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise SweepError(
            f"{folder} has no more room ({error.strerror}): {len(done.fetched) + len(done.here)} of {number} files are "
            "complete. Make room; the same command then continues where this one ended."
        ) from error


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
