"""Files of a run into a folder of the user's: once each, checked, and never over a file of somebody else's.

Each arrives under a name of its own (`.NAME.part`), is checked, and only then gets its name. A journal in the folder
says what each file is and what was begun, so that the same command goes on where a killed one ended: a file that is
here is not fetched again, one that was cut goes on at its last byte.
"""

from __future__ import annotations

import contextlib
import errno
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
from modal_app.store.step import write_atomically
from runner.console.transfer import size_text
from runner.errors import SweepError
from runner.files.run_files import Entry, Files

JOURNAL = ".axosweep-pull.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SHOWN = 5
"""Files named in a message; of more, only how many there are."""


@dataclass(frozen=True, slots=True)
class FileToPull:
    entry: Entry
    to: str
    """Its name below the folder."""
    sha256: str | None = None
    """As the worker that made it has written it down."""


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that is here, as the journal keeps it."""

    source: str
    size: int
    mtime: float
    """The source's."""
    sha256: str
    checked: bool
    """Whether the worker that made it had written down the same checksum."""


@dataclass(slots=True)
class PullResult:
    fetched: list[str] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    """Were whole and unchanged already."""
    bytes: int = 0
    """That were fetched now."""
    unchecked: list[str] = field(default_factory=list)
    """Of the files: those with no checksum of their own to be held against."""


class _Now(Enum):
    """What stands under a wanted file's name."""

    NOTHING = "nothing"
    THE_FILE = "the file"
    AN_OLDER = "an older one of ours"
    ANOTHER = "another file"


def pull(
    files: Files, wanted: Sequence[FileToPull], folder: Path, *, force: bool = False, watch: Callable[[int], None]
) -> PullResult:
    """Bring the wanted files into the folder. `watch` is told the bytes as they come, those too that are
    here already.

    Raises SweepError, before anything is fetched, when the folder has other files of these names (unless `force`) or no
    room; and when a file cannot be read, written, or has another checksum than it should.
    """
    for one in wanted:
        assert not {"..", "/"} & set(PurePosixPath(one.to).parts), one.to
    with _at_work_alone(folder):
        journal, done = _Journal.read(folder), PullResult()
        now = {one.to: _standing(one, folder, journal) for one in wanted}
        if others := [one.to for one in wanted if now[one.to] is _Now.ANOTHER and not force]:
            raise SweepError(
                f"{folder} has other files of these names: {_some(others)}. Nothing was fetched. Name another folder, "
                "or say --force to replace them."
            )
        missing = [one for one in wanted if now[one.to] is not _Now.THE_FILE]
        _refuse_no_room(folder, missing, journal)
        done.here = [one.to for one in wanted if now[one.to] is _Now.THE_FILE]
        watch(sum(one.entry.size for one in wanted if now[one.to] is _Now.THE_FILE))
        with _told_when_full(folder, done, len(wanted)):
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
    """Name -> which source its `.part` is the beginning of."""

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
                f"{path} is not what axosweep pull writes ({error}). Remove it, or name another folder."
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


def _standing(one: FileToPull, folder: Path, journal: _Journal) -> _Now:
    path = folder / one.to
    if not os.path.lexists(path):
        between = [above for above in path.parents if folder in above.parents and os.path.lexists(above)]
        return _Now.NOTHING if all(above.is_dir() for above in between) else _Now.ANOTHER
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
    again = journal.begun.get(one.to) == asdict(one.entry) and part.exists() and part.stat().st_size <= one.entry.size
    journal.begins(one)
    digest = _write(files, one, part, done, watch, start_waiting_jobs=again)
    if again and one.sha256 not in (None, digest):
        digest = _write(
            files, one, part, done, watch, start_waiting_jobs=False
        )  # what a dead machine has left may be anything
    if one.sha256 not in (None, digest):
        part.unlink()
        raise SweepError(
            f"{files.place(one.entry.path)} does not have the checksum that its run has written down: it was damaged "
            "there, or changed since. It was not kept."
        )
    part.replace(path)
    return _received(one, digest)


def _write(
    files: Files,
    one: FileToPull,
    part: Path,
    done: PullResult,
    watch: Callable[[int], None],
    *,
    start_waiting_jobs: bool,
) -> str:
    """The source's bytes into the part, after what it has; returns the sha256 of all of them."""
    digest = hashlib.sha256()
    with part.open("r+b" if start_waiting_jobs else "wb") as file:
        if start_waiting_jobs:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        at = file.tell()
        watch(at)
        for chunk in files.read(one.entry.path, at) if at < one.entry.size else ():
            kept = chunk[: one.entry.size - at]  # a log may have grown since it was listed
            file.write(kept)
            digest.update(kept)
            at += len(kept)
            done.bytes += len(kept)
            watch(len(kept))
            if at == one.entry.size:
                break
        _flush(file)
    if at < one.entry.size:
        raise SweepError(f"{files.place(one.entry.path)} has become shorter while it was read. Run the command again.")
    return digest.hexdigest()


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
            f"{folder} has room for {size_text(free)}, and {size_text(needed)} are to be fetched. Nothing was fetched: "
            "make room, or name a folder on another disk."
        )


@contextlib.contextmanager
def _at_work_alone(folder: Path) -> Iterator[None]:
    """The folder made, and no other pull in it. One that was made for nothing is taken away again."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SweepError(f"{folder} is no folder, or lies below a file. Name another one to pull to.") from None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if not try_lock(descriptor):
            raise SweepError(f"Another axosweep pull is at work in {folder}: wait for it, or name another one.")
        yield
    except SweepError:
        if made and not any(folder.iterdir()):
            folder.rmdir()
        raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _told_when_full(folder: Path, done: PullResult, number: int) -> Iterator[None]:
    """Raises SweepError for a disk that has become full: what is here stays, and is not fetched again."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise SweepError(
            f"{folder} has no more room ({error.strerror}): {len(done.fetched) + len(done.here)} of {number} files are "
            "here and whole. Make room, and the same command goes on where this one ended."
        ) from error


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
