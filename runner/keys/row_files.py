"""Files that the rows of a dataset name: images, videos and sounds, as multimodal chats have them.

A trainer works in a folder of its own, here or on Modal, where the paths in the rows mean nothing. So the store has a
copy of the rows that names the files by their content, and a folder with these files. The copy's hash is the dataset's
identity: it covers the rows and every file that they name, wherever these are.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modal_app.store import pins
from modal_app.store.content import FileState, folder_sha256
from modal_app.store.own_data import DATASET_LISTS
from modal_app.store.step import write_atomically
from runner.errors import SweepError
from runner.keys.content import CHANGED, ContentHashes
from runner.types import Input, InputKind

MULTIMODAL = "processor_type"
"""The key with which Axolotl loads the files that rows name."""
FORMATS = (".jsonl", ".json")
COLUMNS = ("images", "image")
PARTS = ("image", "video", "audio")
REFERENCES = (*PARTS, "url", "path")
"""Where a part of a message names its file."""
LONGEST_NAME = 4096
"""Longer texts contain the file itself, in base64."""
_ADDRESSES = ("http://", "https://", "data:")

Rename = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class NamedFiles:
    """What the rows of a dataset name."""

    files: Mapping[str, Path]
    """Each file by its name in the rows."""
    missing: tuple[str, ...] = ()
    """Names of files that do not exist."""
    addresses: int = 0
    """How often the rows name something on the network."""


def names_files(found: Input, axolotl: Mapping[str, Any]) -> bool:
    """Whether an input is a dataset whose rows name files on this machine."""
    return bool(_names_of(found, axolotl).files)


def named_files(text: str) -> NamedFiles:
    """The files that the rows of a JSON or JSONL file name. Relative names are relative to the current folder, as with
    `axolotl train`. Nothing for another file, or one that is not JSON."""
    path = Path(text).expanduser()
    if path.suffix not in FORMATS or not path.is_file():
        return NamedFiles({})
    stat = path.stat()
    return _named(path, (stat.st_size, stat.st_mtime_ns), os.getcwd())


def identify_rows(found: Input, hashes: ContentHashes) -> tuple[Input, Input]:
    """The dataset, by the content of its rows and their files, and the folder of the files."""
    names = named_files(found.text).files
    stored = {name: _stored_name(path, hashes) for name, path in names.items()}
    folder = folder_sha256({name: hashes.of(path) for name, path in _by_stored_name(names, stored).items()})
    rows = _renamed(Path(found.text).expanduser(), stored, folder)
    return (
        replace(found, kind=InputKind.ROWS, identity=hashlib.sha256(rows.encode()).hexdigest()),
        Input(f"{found.at}.files", found.text, InputKind.ROW_FILES, folder),
    )


def keep_rows(found: Input, target: Path, hashes: ContentHashes) -> None:
    """Put the rows, or the folder of their files, into the store. Raises SweepError if the content has changed."""
    names = named_files(found.text).files
    stored = {name: _stored_name(path, hashes) for name, path in names.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    if found.kind is InputKind.ROWS:
        folder = folder_sha256({name: hashes.of(path) for name, path in _by_stored_name(names, stored).items()})
        write_atomically(target, _renamed(Path(found.text).expanduser(), stored, folder))
        states = {target.name: FileState.of(target).read(target)}
    else:
        states = _copy(_by_stored_name(names, stored), target)
    if pins.content_sha256(target, states) != found.identity:
        target.unlink() if target.is_file() else shutil.rmtree(target)
        raise SweepError(CHANGED.format(found.text))
    pins.write_note(target, states)


def _names_of(found: Input, axolotl: Mapping[str, Any]) -> NamedFiles:
    of_rows = found.kind is InputKind.FILE and found.at.split(".")[0] in DATASET_LISTS
    return named_files(found.text) if of_rows and axolotl.get(MULTIMODAL) else NamedFiles({})


def _copy(files: Mapping[str, Path], target: Path) -> dict[str, FileState]:
    """Complete a folder in the store. Its files are named by their content, so those that it has are not copied."""
    target.mkdir(exist_ok=True)
    for name, source in files.items():
        copy = target / name
        if not copy.exists():
            temporary = copy.with_name(f".{name}.{os.getpid()}")
            shutil.copyfile(source, temporary)
            temporary.replace(copy)
    return {name: FileState.of(target / name).read(target / name) for name in files}


def _by_stored_name(names: Mapping[str, Path], stored: Mapping[str, str]) -> dict[str, Path]:
    return {stored[name]: path for name, path in names.items()}


def _stored_name(path: Path, hashes: ContentHashes) -> str:
    return f"{hashes.of(path)[:16]}{path.suffix}"


def _renamed(path: Path, stored: Mapping[str, str], folder: str) -> str:
    """The rows with the names that their files have in the store."""

    def rename(name: str) -> str:
        return f"inputs/{folder[:16]}/{stored[name]}" if name in stored else name

    rows = [_with_names(row, rename) for row in _rows(path)]
    return "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


@functools.lru_cache(maxsize=64)  # the runs of a sweep share their files
def _named(path: Path, stat: tuple[int, int], folder: str) -> NamedFiles:
    files: dict[str, Path] = {}
    missing: dict[str, None] = {}
    addresses = 0

    def look(name: str) -> str:
        nonlocal addresses
        if name.startswith(_ADDRESSES):
            addresses += not name.startswith("data:")
        elif len(name) <= LONGEST_NAME and name not in files and name not in missing:
            file = Path(name.removeprefix("file://"))
            if file.is_file():
                files[name] = file.absolute()
            elif file.suffix:
                missing[name] = None
        return name

    try:
        for row in _rows(path):
            _with_names(row, look)
    except ValueError:
        return NamedFiles({})  # preflight reports the line
    return NamedFiles(files, tuple(missing), addresses)


def _rows(path: Path) -> Iterator[Any]:
    """The rows of a file with one JSON object on each line, or with a list of them."""
    text = path.read_text(encoding="utf-8")
    if text.lstrip().startswith("["):
        yield from json.loads(text)
    else:
        yield from (json.loads(line) for line in text.split("\n") if line.strip())


def _with_names(row: Any, rename: Rename) -> Any:
    """A row with what `rename` returns for each name of a file."""
    if not isinstance(row, dict):
        return row
    columns = {name: _renamed_value(row[name], rename) for name in COLUMNS if name in row}
    rest = {name: _renamed_parts(value, rename) for name, value in row.items() if name not in columns}
    return {name: columns[name] if name in columns else rest[name] for name in row}


def _renamed_value(value: Any, rename: Rename) -> Any:
    """An image column: a name, an object with a path, or a list of these."""
    match value:
        case str():
            return rename(value)
        case list():
            return [_renamed_value(one, rename) for one in value]
        case {"path": str(name)}:
            return {**value, "path": rename(name)}
    return value


def _renamed_parts(value: Any, rename: Rename) -> Any:
    """Messages: any object whose type is one of PARTS names a file."""
    match value:
        case list():
            return [_renamed_parts(one, rename) for one in value]
        case dict():
            names = REFERENCES if value.get("type") in PARTS else ()
            return {
                key: rename(one) if key in names and isinstance(one, str) else _renamed_parts(one, rename)
                for key, one in value.items()
            }
    return value
