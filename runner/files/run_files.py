"""The files of a run, grouped into the parts that people can pull. Only reads.

It works for a store on this machine and for Modal's Volumes: a `Files` lists and reads either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from modal_app.store import checkpoints
from modal_app.store.layout import ANSWERS, ATTEMPT_PREFIX, DEBUG_LOG, DRAFT, LOSSES, LOSSES_BEFORE, MANIFEST, Store
from modal_app.store.read_json import parse_json
from modal_app.store.step import FOLLOW_UP_KINDS, StepKind

CHUNK = 8 * 1024 * 1024
RECORD = (
    "config.yml", "metrics.jsonl", "result.json", "run.json", MANIFEST, "wandb.json", LOSSES, LOSSES_BEFORE,
)  # fmt: skip
"""Files of a run's own folder: its request and its results."""
_DRAFTED = re.compile(rf"{ATTEMPT_PREFIX}(\d+)/{DRAFT}/model/{checkpoints.PREFIX}(\d+)(?=/)")
"""A checkpoint of a run on Modal that has not finished."""


class PartKind(StrEnum):
    """In the order of listings: what a run has trained comes first, the rest last."""

    ADAPTER = "adapter"
    MODEL = "model"
    MERGED = "merged"
    CHECKPOINT = "checkpoint"
    ANSWERS = "answers"
    EVALUATION = "evaluation"
    RECORD = "record"
    LOGS = "logs"
    DATA = "data"
    REST = "rest"


TRAINED = (PartKind.ADAPTER, PartKind.MODEL)
"""The result of training: one of the two."""
_OF_STEP = {
    StepKind.MERGE: PartKind.MERGED,
    StepKind.INFER: PartKind.ANSWERS,
    StepKind.EVALUATE: PartKind.EVALUATION,
}
_STEP_OF = {kind: step for step, kind in _OF_STEP.items()}


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
        """The place of a store's path, for messages: a path on this machine, or on a Volume."""
        ...

    def below(self, folder: str) -> list[Entry]:
        """Every file below a folder of the store, sorted by path, without links. Empty if there is no such folder."""
        ...

    def read(self, path: str, start: int) -> Iterator[bytes]:
        """The file's bytes from `start` on. Raises FileNotFoundError, or SweepError if its end cannot be read."""
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
    kind: PartKind
    own: str
    """Distinguishes parts of one kind: a step's own hash, a checkpoint's step. Empty for a kind with only one part."""
    folder: str
    """Below the store's root. The names of the files are relative to it."""
    files: tuple[Entry, ...]
    is_complete: bool = True
    """Whether it is complete; only complete parts can be pulled."""

    @property
    def name(self) -> str:
        """The name that `pull` takes: adapter, merged-HASH, checkpoint-N."""
        return f"{self.kind}-{self.own}" if self.own else str(self.kind)

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.files)

    def named(self, entry: Entry) -> str:
        """A file's name within the part."""
        return PurePosixPath(entry.path).relative_to(self.folder).as_posix()


def parts_of(files: Files, key: str, data_key: str) -> list[Part]:
    """The parts of a run, and the dataset that it reads."""
    home = f"runs/{key}"
    found = {entry.path: entry for entry in files.below(home)}
    groups: dict[tuple[PartKind, str], list[Entry]] = {}
    drafted = {} if f"{home}/result.json" in found else _drafted_checkpoints(home, found)
    for entry in found.values():
        name = entry.path.removeprefix(f"{home}/")
        in_draft = _DRAFTED.match(name)
        if in_draft and drafted.get(in_draft[2]) == f"{home}/{in_draft[0]}":
            groups.setdefault((PartKind.CHECKPOINT, in_draft[2]), []).append(entry)
        else:
            groups.setdefault(_part(name), []).append(entry)
    if (trained := groups.pop((PartKind.MODEL, ""), None)) is not None:
        is_adapter = f"{home}/model/adapter_config.json" in found
        groups[PartKind.ADAPTER if is_adapter else PartKind.MODEL, ""] = trained
    unchecked = [
        Part(kind, own, drafted.get(own) or _folder(home, kind, own), tuple(group))
        for (kind, own), group in groups.items()
    ]
    parts = [replace(part, is_complete=_is_complete(files, home, part, found)) for part in unchecked]
    dataset = files.below(f"prepared/{data_key}")
    if dataset:
        ready = any(entry.path == f"prepared/{data_key}/{MANIFEST}" for entry in dataset)
        parts.append(Part(PartKind.DATA, "", f"prepared/{data_key}", tuple(dataset), ready))
    return sorted(parts, key=_order)


def checksums(files: Files, part: Part) -> dict[str, str]:
    """Path -> sha256 of a part's files, as recorded by the worker that wrote them; empty if there is no record, as from
    an earlier version of axosweep."""
    if part.kind is PartKind.CHECKPOINT:
        sums = read_object(files, f"{part.folder}/{checkpoints.MARKER}").get("sha256", {})
        return {f"{part.folder}/{name}": str(sha256) for name, sha256 in sums.items()}
    folder = PurePosixPath(part.folder)
    if folder.name != "model" and part.kind is not PartKind.DATA:
        return {}
    manifest_folder = folder if part.kind is PartKind.DATA else folder.parent
    listed = read_object(files, str(manifest_folder / MANIFEST)).get("files", {})
    return {f"{part.folder}/{name}": str(one["sha256"]) for name, one in listed.items()}


def read_object(files: Files, path: str) -> dict[str, Any]:
    """A small JSON object; empty where there is no such file, or one that cannot be read."""
    return parse_json(files.place(path), lambda: b"".join(files.read(path, 0)))


def all_bytes(parts: Iterable[Part]) -> int:
    return sum(part.bytes for part in parts)


def _drafted_checkpoints(home: str, found: Iterable[str]) -> dict[str, str]:
    """By step, the folder of the checkpoint in the newest attempt's draft that has it."""
    there = [match for path in found if (match := _DRAFTED.match(path.removeprefix(f"{home}/")))]
    return {match[2]: f"{home}/{match[0]}" for match in sorted(there, key=lambda match: int(match[1]))}


def _part(name: str) -> tuple[PartKind, str]:
    """The kind and own name of the part that a file belongs to, from its name below the run's folder."""
    first, *rest = PurePosixPath(name).parts
    match first, rest:
        case "model", [log] if log == DEBUG_LOG:
            return PartKind.LOGS, ""
        case "model", [inner, *more]:
            if more and (checkpoint := re.fullmatch(rf"{checkpoints.PREFIX}(\d+)", inner)):
                return PartKind.CHECKPOINT, checkpoint[1]
            return PartKind.REST if inner.startswith((".", checkpoints.ASIDE)) else PartKind.MODEL, ""
        case kind, [own, *more] if kind in FOLLOW_UP_KINDS:
            if _is_log(more):
                return PartKind.LOGS, ""
            if kind == StepKind.MERGE and more in ([MANIFEST], ["result.json"]):
                return PartKind.RECORD, ""  # the files next to the model
            belongs = more[:1] == ["model"] or more in (["result.json"], [ANSWERS], [LOSSES])
            return (_OF_STEP[StepKind(kind)], own) if belongs else (PartKind.REST, "")
        case name, [] if name in RECORD:
            return PartKind.RECORD, ""
    return PartKind.LOGS if _is_log([first, *rest]) else PartKind.REST, ""


def _is_log(parts: Sequence[str]) -> bool:
    """A log of an attempt, or of one of its ranks."""
    match parts:
        case [attempt, log]:
            return attempt.startswith(ATTEMPT_PREFIX) and log.startswith("log") and log.endswith(".txt")
    return False


def _folder(home: str, kind: PartKind, own: str) -> str:
    if kind in TRAINED:
        return f"{home}/model"
    if kind is PartKind.CHECKPOINT:
        return f"{home}/model/{checkpoints.PREFIX}{own}"
    if kind in _STEP_OF:
        return f"{home}/{_STEP_OF[kind]}/{own}" + ("/model" if kind is PartKind.MERGED else "")
    return home


def _is_complete(files: Files, home: str, part: Part, found: Collection[str]) -> bool:
    """`found`: every path of the run's folder."""
    if part.kind in TRAINED:
        return f"{home}/result.json" in found
    if part.kind is PartKind.CHECKPOINT:
        sizes = read_object(files, f"{part.folder}/{checkpoints.MARKER}").get("files", {})
        there = {part.named(entry): entry.size for entry in part.files}
        return bool(sizes) and all(there.get(file) == size for file, size in sizes.items())
    return part.kind not in _STEP_OF or f"{home}/{_STEP_OF[part.kind]}/{part.own}/result.json" in found


def _order(part: Part) -> tuple[int, int, str]:
    number = int(part.own) if part.kind is PartKind.CHECKPOINT else 0
    return list(PartKind).index(part.kind), number, part.own


def _walk(root: Path, folder: Path) -> Iterator[Entry]:
    for name, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not os.path.islink(os.path.join(name, one))]
        for one in names:
            path = Path(name, one)
            try:
                stat = path.lstat()
            except FileNotFoundError:
                continue  # a temporary file of a worker
            if not path.is_symlink():
                yield Entry(path.relative_to(root).as_posix(), stat.st_size, stat.st_mtime)
