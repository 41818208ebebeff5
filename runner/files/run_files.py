"""What there is of a run: every file below its folder, in the parts that people ask for. Only reads.

The same for a store on this machine and for Modal's Volumes: a `Files` lists and reads either.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from modal_app.store import checkpoints
from modal_app.store.layout import ANSWERS, ATTEMPT_PREFIX, DEBUG_LOG, MANIFEST, Store
from modal_app.store.step import AFTER, StepKind

CHUNK = 8 * 1024 * 1024
RECORD = ("config.yml", "metrics.jsonl", "result.json", "run.json", MANIFEST, "wandb.json")
"""Files of a run's own folder: what was asked and what came of it."""

AFTER_PARTS = {StepKind.MERGE: "merged", StepKind.INFER: "answers", StepKind.EVALUATE: "evaluation"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a store."""

    path: str
    """Below the store's root."""
    size: int
    mtime: float
    """Unix seconds."""


class Files(Protocol):
    """A store's files, wherever they are."""

    def place(self, path: str) -> str:
        """Where a path of the store lies, for people: a folder of this machine, or a path on a Volume."""
        ...

    def below(self, folder: str) -> list[Entry]:
        """Every file below a folder of the store, by path; no links. None where there is no folder."""
        ...

    def read(self, path: str, start: int) -> Iterator[bytes]:
        """The file's bytes from `start` on. Raises SweepError when it cannot be read to its end."""
        ...


@dataclass(frozen=True, slots=True)
class LocalFiles:
    store: Store

    def place(self, path: str) -> str:
        return str(self.store.root / path)

    def below(self, folder: str) -> list[Entry]:
        return sorted(_walk(self.store.root, self.store.root / folder), key=lambda entry: entry.path)

    def read(self, path: str, start: int) -> Iterator[bytes]:
        with (self.store.root / path).open("rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK):
                yield chunk


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    """adapter, model, merged-HASH, checkpoint-N, logs, record, answers-HASH, evaluation-HASH, data, rest"""
    folder: str
    """Below the store's root: what the files' names are relative to."""
    files: tuple[Entry, ...]
    whole: bool = True
    """Whether what makes it has ended well; the only kind that is pulled by name."""

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files)

    def named(self, entry: Entry) -> str:
        """A file's name within the part."""
        return PurePosixPath(entry.path).relative_to(self.folder).as_posix()


def parts_of(files: Files, key: str, data_key: str) -> list[Part]:
    """What there is of a run, and the dataset that it reads: what it has made first, what nobody asks for last."""
    home = f"runs/{key}"
    found = {entry.path: entry for entry in files.below(home)}
    groups: dict[str, list[Entry]] = {}
    for entry in found.values():
        groups.setdefault(_part(entry.path.removeprefix(f"{home}/")), []).append(entry)
    trained = f"{home}/result.json" in found
    if (made := groups.pop("model", None)) is not None:
        is_adapter = f"{home}/model/adapter_config.json" in found
        groups["adapter" if is_adapter else "model"] = made
    parts = [
        Part(name, _folder(home, name), tuple(group), _is_whole(files, home, name, group, found, trained))
        for name, group in groups.items()
    ]
    dataset = files.below(f"prepared/{data_key}")
    if dataset:
        ready = any(entry.path == f"prepared/{data_key}/{MANIFEST}" for entry in dataset)
        parts.append(Part("data", f"prepared/{data_key}", tuple(dataset), ready))
    return sorted(parts, key=lambda part: _order(part.name))


def checksums(files: Files, part: Part) -> dict[str, str]:
    """sha256 of a part's files by path, as the worker that made them has written it down; empty where it has not.

    A checkpoint has none, nor what was made by an earlier version.
    """
    folder = PurePosixPath(part.folder)
    if folder.name != "model" and part.name != "data":
        return {}
    beside = folder if part.name == "data" else folder.parent
    listed = read_object(files, str(beside / MANIFEST)).get("files", {})
    return {f"{part.folder}/{name}": str(one["sha256"]) for name, one in listed.items()}


def read_object(files: Files, path: str) -> dict[str, Any]:
    """A small JSON object; empty where there is no such file."""
    try:
        loaded = json.loads(b"".join(files.read(path, 0)))
    except FileNotFoundError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def all_bytes(parts: Iterable[Part]) -> int:
    return sum(part.bytes for part in parts)


def _part(name: str) -> str:
    """The part that a file of a run's folder belongs to, by its name there."""
    first, *rest = PurePosixPath(name).parts
    match first, rest:
        case "model", [log] if log == DEBUG_LOG:
            return "logs"
        case "model", [inner, *more]:
            if more and re.fullmatch(rf"{checkpoints.PREFIX}\d+", inner):
                return inner
            return "rest" if inner.startswith((".", checkpoints.ASIDE)) else "model"
        case kind, [own, *more] if kind in AFTER:
            if _is_log(more):
                return "logs"
            if kind == StepKind.MERGE and more in ([MANIFEST], ["result.json"]):
                return "record"  # what lies beside the model
            kept = more[:1] == ["model"] or more in (["result.json"], [ANSWERS])
            return f"{AFTER_PARTS[StepKind(kind)]}-{own}" if kept else "rest"
        case name, [] if name in RECORD:
            return "record"
    return "logs" if _is_log([first, *rest]) else "rest"


def _is_log(parts: Sequence[str]) -> bool:
    """A log of an attempt, or of one of its ranks."""
    match parts:
        case [attempt, log]:
            return attempt.startswith(ATTEMPT_PREFIX) and log.startswith("log") and log.endswith(".txt")
    return False


def _folder(home: str, name: str) -> str:
    kind, _, own = name.partition("-")
    if name in ("adapter", "model"):
        return f"{home}/model"
    if kind == "checkpoint":
        return f"{home}/model/{name}"
    for step, part in AFTER_PARTS.items():
        if part == kind:
            return f"{home}/{step}/{own}" + ("/model" if step is StepKind.MERGE else "")
    return home


def _is_whole(
    files: Files, home: str, name: str, group: Sequence[Entry], found: dict[str, Entry], trained: bool
) -> bool:
    kind = name.partition("-")[0]
    if name in ("adapter", "model"):
        return trained
    if kind == "checkpoint":
        sizes = read_object(files, f"{home}/model/{name}/{checkpoints.MARKER}").get("files", {})
        there = {entry.path.removeprefix(f"{home}/model/{name}/"): entry.size for entry in group}
        return bool(sizes) and all(there.get(file) == size for file, size in sizes.items())
    if kind in AFTER_PARTS.values():
        folder = _folder(home, name).removesuffix("/model")
        return f"{folder}/result.json" in found
    return True


def _order(name: str) -> tuple[int, int, str]:
    kind, _, own = name.partition("-")
    kinds = ("adapter", "model", "merged", "checkpoint", "answers", "evaluation", "record", "logs", "data", "rest")
    return kinds.index(kind), int(own) if own.isdecimal() else 0, name


def _walk(root: Path, folder: Path) -> Iterator[Entry]:
    for name, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not os.path.islink(os.path.join(name, one))]
        for one in names:
            path = Path(name, one)
            try:
                stat = path.lstat()
            except FileNotFoundError:
                continue  # a worker's own temporary file
            if not path.is_symlink():
                yield Entry(path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime)
