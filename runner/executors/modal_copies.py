"""Copies of the small files of Modal's Volumes, in the store's own layout."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import aiohttp
import modal
import modal.exception

from modal_app.cloud.job import DONE
from modal_app.halving.entries import entries_folder
from modal_app.store.layout import (
    ANSWERS,
    ATTEMPT_PREFIX,
    DRAFT,
    HELD_OUT,
    LOSSES,
    LOSSES_BEFORE,
    MANIFEST,
    StepFolder,
    Store,
)
from modal_app.store.step import StepKind, write_atomically
from runner.cost.spent import containers, fetch_folder
from runner.executors.modal_submission import MirroredStep

OF_WEIGHTS = (LOSSES, LOSSES_BEFORE)
"""A step that has succeeded may lack those that its draft had: they would be of other weights than it stores."""
OF_STEP = (
    "run.json", "metrics.jsonl", "result.json", "wandb.json", "config.yml", ANSWERS, MANIFEST, *OF_WEIGHTS,
)  # fmt: skip
OF_ATTEMPT = (
    "container.json", "started.json", "result.json", "train.json", "progress.json", "exit.json", "stop.json", "log.txt",
)  # fmt: skip
OF_DRAFT = ("metrics.jsonl", "wandb.json", "config.yml", *OF_WEIGHTS)
"""Of the newest attempt's draft: they are the step's until it has succeeded."""

_ON_RUNS_VOLUME = tuple(f"{kind}-" for kind in StepKind if kind is not StepKind.PREPROCESS)


@dataclass(frozen=True, slots=True)
class _Listing:
    """The entries of a step's folder that are to be copied."""

    files: list[Any]
    """The step's own."""
    of_attempts: list[Any] = field(default_factory=list)
    drafted: list[Any] = field(default_factory=list)
    """Of the newest draft: the step's, until it has succeeded."""
    containers: list[Any] = field(default_factory=list)


@dataclass(slots=True)
class Copies:
    """`store` has the copies. Several threads may use it, each for another step."""

    store: Store
    cache_volume: str
    runs_volume: str
    _copied: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Volume path -> size and time of its copy."""
    _paid: set[str] = field(default_factory=set)
    """Done steps whose containers have written their last record."""
    _volumes: dict[str, modal.Volume] = field(default_factory=dict)
    """By name: each is looked up once."""
    _writing: threading.Lock = field(default_factory=threading.Lock)
    """Two datasets may need the same model."""

    def done(self) -> set[str]:
        """The marks of every finished step and fetched model. What was since removed from the cache Volume is not done:
        otherwise, a run would find it missing on a rented GPU."""
        cache = self._volume(self.cache_volume)
        there = {f"preprocess-{name}" for name in _names(cache, "prepared")}
        there |= {"fetch-" + name.removeprefix("models--").replace("--", "-") for name in _names(cache, "hub")}
        marks = _names(self._volume(self.runs_volume), DONE)
        return {mark for mark in marks if mark.startswith(_ON_RUNS_VOLUME) or _repository(mark) in there}

    def copy(self, step: MirroredStep) -> None:
        """Copy the small files of a step's folder that have changed.

        The "done" file is listed first and copied last: once it is here, the copy is complete.
        """
        folder, volume = self.store.folder(step.kind, step.key), self._volume_of(step)
        listing = self._listing(volume, folder, apart=step.kind is StepKind.PREPROCESS)
        last = [entry for entry in listing.files if entry.path == self._there(folder.done)]
        for entry in (*listing.files, *listing.of_attempts):
            if entry not in last and not self._is_identity(entry, folder):
                self._copy(volume, entry)
        for entry in listing.drafted if not last else ():
            self._copy(volume, entry, folder.path / PurePosixPath(entry.path).name)
        self._copy_containers(volume, folder, listing.containers)
        for name in step.fetches:
            fetched = fetch_folder(self.store, name)
            runs = self._volume(self.runs_volume)
            self._copy_containers(runs, fetched, listed(runs, self._there(fetched.containers)))
        for entry in last:
            for name in OF_WEIGHTS:
                if self._there(folder.path / name) not in {one.path for one in listing.files}:
                    (folder.path / name).unlink(missing_ok=True)
            self._copy(volume, entry)

    def _is_identity(self, entry: Any, folder: StepFolder) -> bool:
        """Whether the entry is the file that says what the step is, and is here already. A launcher has written it, and
        it never differs for one key."""
        here = folder.identity
        return entry.path == self._there(here) and here.exists() and here.stat().st_size == entry.size

    def _listing(self, volume: modal.Volume, folder: StepFolder, *, apart: bool) -> _Listing:
        """With one request, or a second one if the step is done: what was listed together with the "done" file may be
        older than that. `apart`: that file is in a folder of its own, that of a prepared dataset, which is listed first
        and of which all files but the rows are small."""
        path = self._there(folder.path)
        prepared = listed(volume, self._there(folder.done.parent)) if apart else []
        entries = listed(volume, path, recursive=True)
        if any(entry.path == self._there(folder.done) for entry in entries):
            entries = listed(volume, path, recursive=True)
        found = _Listing([one for one in prepared if _is_of_dataset(PurePosixPath(one.path))])
        drafts: dict[int, list[Any]] = {}
        for entry in entries:
            match PurePosixPath(entry.path).relative_to(path).parts:
                case [name] if name in OF_STEP:
                    found.files.append(entry)
                case ["containers", name] if name.endswith(".json"):
                    found.containers.append(entry)
                case [attempt, name] if name in OF_ATTEMPT and _attempt_number(attempt):
                    found.of_attempts.append(entry)
                case [attempt, str(draft), name] if draft == DRAFT and _attempt_number(attempt):
                    if name == folder.done.name:  # the draft is complete
                        found.of_attempts.append(entry)
                    drafts.setdefault(_attempt_number(attempt), []).append(entry)
        newest = drafts[max(drafts)] if drafts else []
        found.drafted.extend(one for one in newest if PurePosixPath(one.path).name in OF_DRAFT)
        return found

    def copy_search(self, search: str) -> None:
        """Copy the entries of a search. None of them ever changes."""
        volume = self._volume(self.runs_volume)
        for entry in listed(volume, self._there(entries_folder(self.store, search)), recursive=True):
            if entry.path.endswith(".json") and not (self.store.root / entry.path).exists():
                self._copy(volume, entry)

    def _copy_containers(self, volume: modal.Volume, folder: StepFolder, entries: Iterable[Any]) -> None:
        """Copy what they have spent. The record of a running container may change within a second without growing."""
        at_work = {f"{record.task}.json" for record in containers(folder) if not record.ended}
        for entry in entries:
            if (name := PurePosixPath(entry.path).name) in at_work:
                self._copied.pop(entry.path, None)
            if name.endswith(".json"):
                self._copy(volume, entry)

    def await_last_word(self, step: MirroredStep, *, live: bool) -> None:
        """Copy the last record of a done step's container, which outlives the step by a moment that is charged. A
        killed container writes no more, so nothing is expected once its call has ended."""
        if step.name in self._paid:
            return
        folder = self.store.folder(step.kind, step.key)
        if not _have_ended(folder):
            volume = self._volume_of(step)
            self._copy_containers(volume, folder, listed(volume, self._there(folder.containers)))
        if not live or _have_ended(folder):
            self._paid.add(step.name)

    def _copy(self, volume: modal.Volume, entry: Any, target: Path | None = None) -> None:
        """Copy a file, unless the copy is current. It gets the same path, unless `target` is another."""
        if self._copied.get(entry.path) == (entry.size, entry.mtime):
            return
        content = read_bytes(volume, entry.path)
        with self._writing:
            target = target or self.store.root / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, content)
            self._copied[entry.path] = (entry.size, entry.mtime)

    def _there(self, path: Path) -> str:
        return path.relative_to(self.store.root).as_posix()

    def _volume_of(self, step: MirroredStep) -> modal.Volume:
        preprocess = step.kind is StepKind.PREPROCESS
        return self._volume(self.cache_volume if preprocess else self.runs_volume)

    def _volume(self, name: str) -> modal.Volume:
        return self._volumes.setdefault(name, modal.Volume.from_name(name))


def _attempt_number(name: str) -> int:
    """0 if it is not the name of an attempt's folder."""
    number = name.removeprefix(ATTEMPT_PREFIX)
    return int(number) if name.startswith(ATTEMPT_PREFIX) and number.isdecimal() else 0


def _names(volume: modal.Volume, path: str) -> set[str]:
    return {PurePosixPath(entry.path).name for entry in listed(volume, path)}


def _repository(mark: str) -> str:
    """A fetched model's mark without its commit; any other mark as it is."""
    return mark.partition("@")[0].replace("--", "-")


def read_text(volume: modal.Volume, path: str) -> str:
    """Raises the errors of `read_bytes`."""
    return read_bytes(volume, path).decode(errors="replace")


def read_bytes(volume: modal.Volume, path: str) -> bytes:
    """Raises the ConnectionError of Modal's client also for errors that the client passes on: those of its HTTP library
    (after five tries within two seconds), and a file that was removed since it was listed. The next look may succeed.
    """
    try:
        return b"".join(volume.read_file(path))
    except (OSError, aiohttp.ClientError, modal.exception.ExecutionError) as error:
        raise modal.exception.ConnectionError(f"{path} could not be read: {error!r}") from error


def listed(volume: modal.Volume, path: str, *, recursive: bool = False) -> list[Any]:
    """The entries of a folder on a Volume; none where there is no folder, or no Volume yet."""
    try:
        return list(volume.listdir(path, recursive=recursive))
    except (modal.exception.NotFoundError, FileNotFoundError):
        return []


def _is_of_dataset(path: PurePosixPath) -> bool:
    """A prepared dataset's files are small, except the rows."""
    return path.suffix == ".json" or path.name == HELD_OUT


def _have_ended(folder: StepFolder) -> bool:
    """Whether the container that made the newest attempt at a step has written its last record."""
    records = containers(folder)
    return bool(records) and max(records, key=lambda record: max(record.attempts)).ended
