"""Local inputs are pinned to their content: a note next to each input lists the files that it had when they were
hashed.

A large folder (a base model) is only linked into the store, so it may be edited at any time. It is compared with its
note before and after it is loaded. Where the files' states are as noted, nothing is read. Standard library.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modal_app.store.content import FileState, file_sha256, files_below, folder_sha256
from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.start_checkpoint import CONFIG_KEY
from modal_app.store.step import Step, StepKind, write_atomically

SUFFIX = ".pin.json"
"""At the end of a note's name; the rest is the input's name."""
INPUT = re.compile(r"inputs/[^/]+")
IDENTITY = re.compile(r"([0-9a-f]{16,64})(\..*)?")
"""The name of an input: its sha256 or the first 16 digits of that, and the extension of a file."""
ROWS = ("path", "data_files")
"""Of a dataset: what only preparing it reads, or a run that reads its own data."""
NAMED = 3
"""So many files are named at most."""

States = dict[str, FileState]
"""By the name in the folder; of an input that is one file, by its own name."""


class InputChanged(Exception):
    """The content of an input is not the one that it is pinned to. The message names the files."""


def check_step(step: Step, store: Store) -> None:
    """Raises InputChanged if a local input that a step loads has another content than it is pinned to."""
    for name in inputs_of(step):
        check(store.root / name, sizes_only=store.is_mounted)


def check_config(config: Mapping[str, Any], inputs: Path) -> None:
    """The same for the model of a keyed config. `inputs`: the store's folder of that name."""
    for name in _named(config, rows=False):
        check(inputs.parent / name)


def check_unedited(step: Step, store: Store) -> None:
    """Raises InputChanged if files that a step has loaded were edited since.

    On a CPU, weights stay mapped to their file, so an edit changes the model in memory. A file that was replaced or
    removed does not count, because the mapping is to the old one.
    """
    for target in (store.root / name for name in inputs_of(step)):
        noted = _noted(target)
        files = _files(target) if target.exists() else ()
        edited = [path for own, path in files if (known := noted.get(own)) and _is_edited(path, known)]
        if edited:
            raise InputChanged(_message(edited))


def check(target: Path, *, sizes_only: bool = False) -> None:
    """Raises InputChanged if an input has another content than it is pinned to.

    Files are read only if their state is not the noted one; equal content renews the note. `sizes_only`: nothing is
    ever read, as for a copy on a Volume, which nothing edits.
    """
    noted, identity = _noted(target), _identity(target)
    if not noted and (sizes_only or not identity):
        return  # nothing records what it should be
    if sizes_only:
        sizes = {own: path.stat().st_size for own, path in _files(target)}
        if sizes != {own: state.size for own, state in noted.items()}:
            raise InputChanged(_message([target]))
        return
    now = _states(target, noted)
    if now == noted:
        return
    changed = [target / own for own in {**noted, **now} if _sha256(noted, own) != _sha256(now, own)]
    if changed if not identity else not content_sha256(target, now).startswith(identity):
        raise InputChanged(_message(changed if noted and target.is_dir() else [target]))
    with contextlib.suppress(OSError):  # the store of another user; it is hashed again next time
        write_note(target, now)


def write_note(target: Path, states: Mapping[str, FileState]) -> None:
    """`states`: of all files of the input, with their hashes."""
    files = {own: state.as_json() for own, state in states.items()}
    write_atomically(note_of(target), json.dumps({"files": files}, indent=1))


def content_sha256(target: Path, states: Mapping[str, FileState]) -> str:
    """Hex sha256 of an input whose files have these states."""
    if target.is_dir():
        return folder_sha256({own: state.sha256 for own, state in states.items()})
    return _sha256(states, target.name)


def as_noted(target: Path) -> str:
    """Hex sha256 of an input that is a file, if its state is the noted one; otherwise empty."""
    known = _noted(target).get(target.name)
    return known.sha256 if known and target.is_file() and FileState.of(target).is_as(known) else ""


def note_of(target: Path) -> Path:
    return target.with_name(target.name + SUFFIX)


def input_of(name: str) -> str:
    """The name of the input that a file of `inputs/` belongs to: a note belongs to its input."""
    return name.removesuffix(SUFFIX)


def inputs_of(step: Step) -> list[str]:
    """The local inputs that a step loads, as `inputs/...`, each once. Start checkpoints have a marker of their own."""
    rows = step.kind is StepKind.PREPROCESS or (step.kind is StepKind.TRAIN and step.own_data is not None)
    return list(dict.fromkeys([*_named(step.config, rows=rows), *_named(step.options, rows=True)]))


def _named(value: Any, *, rows: bool) -> Iterator[str]:
    match value:
        case str():
            if found := INPUT.match(value):
                yield found[0]
        case Mapping():
            left_out = {CONFIG_KEY} if rows else {CONFIG_KEY, *ROWS}
            for key, one in value.items():
                if key not in left_out:
                    yield from _named(one, rows=rows)
        case list() | tuple():
            for one in value:
                yield from _named(one, rows=rows)


def _files(target: Path) -> Iterator[tuple[str, Path]]:
    """Raises InputChanged where there is nothing."""
    if not target.exists():
        raise InputChanged(f"{_shown(target)} does not exist any more; put it back")
    if target.is_dir():
        yield from ((path.relative_to(target).as_posix(), path) for path in files_below(target))
    else:
        yield target.name, target


def _states(target: Path, noted: Mapping[str, FileState]) -> States:
    """The states of all files now. Files that differ from the note are hashed."""
    found: States = {}
    for own, path in _files(target):
        state, known = FileState.of(path), noted.get(own)
        found[own] = known if known and state.is_as(known) else state.read(path)
    return found


def _noted(target: Path) -> States:
    """Empty where there is no note, or one that cannot be read."""
    raw = read_json(note_of(target), lenient=True).get("files")
    states = {str(own): FileState.from_json(one) for own, one in raw.items()} if isinstance(raw, dict) else {}
    found = {own: state for own, state in states.items() if state is not None}
    return found if len(found) == len(states) else {}


def _identity(target: Path) -> str:
    """The digits of its sha256 that its name has; empty for another name."""
    named = IDENTITY.fullmatch(target.name)
    return named[1] if named else ""


def _is_edited(path: Path, known: FileState) -> bool:
    state = FileState.of(path)
    return state.inode == known.inode and not state.is_as(known) and file_sha256(path) != known.sha256


def _sha256(states: Mapping[str, FileState], own: str) -> str:
    return states[own].sha256 if own in states else ""


def _message(changed: list[Path]) -> str:
    names = ", ".join(map(_shown, changed[:NAMED]))
    more = f" and {len(changed) - NAMED} more" if len(changed) > NAMED else ""
    return (
        f"{names}{more} changed after the run was planned. Restore the old content, or run the sweep's command again, "
        "which plans a new run with the new content"
    )


def _shown(path: Path) -> str:
    """The user's own path, to which the store's link leads."""
    return str(path.resolve())
