"""Whether the files of a dataset or a model are still the ones that their step has listed in its manifest.

Sizes are compared every time. Hashes are compared once per machine and file state: what has been verified is remembered
in the store's cache. In a container only sizes are compared. Standard library.
"""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from modal_app.store.content import FileState
from modal_app.store.layout import MANIFEST, Store
from modal_app.store.read_json import read_json
from modal_app.store.state import is_done
from modal_app.store.step import StepKind, write_atomically


def dataset_damage(store: Store, data_key: str) -> str:
    """What is wrong with a prepared dataset that has a manifest; empty if nothing is."""
    if not is_done(store.folder(StepKind.PREPROCESS, data_key)):  # its content, since it exists
        return f"its {MANIFEST} is empty or damaged"
    return _damage(store, store.prepared_dataset(data_key), store.manifest(data_key), data_key)


def model_damage(store: Store, model: Path) -> str:
    """What is wrong with the model that a train or merge step has left in that folder; empty if nothing is."""
    name = model.parent.relative_to(store.runs).as_posix().replace("/", "-")
    return _damage(store, model, model.parent / MANIFEST, name)


def withdraw_damaged(store: Store, data_key: str) -> str:
    """If a prepared dataset is damaged, remove its manifest, so that it is prepared again; returns what is wrong.

    The caller holds the step's claim.
    """
    manifest = store.manifest(data_key)
    damage = dataset_damage(store, data_key) if manifest.exists() else ""
    if damage:
        manifest.unlink()
    return damage


def note_verified(store: Store, data_key: str, listed: Mapping[str, Any]) -> None:
    """Remember a dataset whose files have just been hashed."""
    folder = store.prepared_dataset(data_key)
    states = {name: replace(FileState.of(folder / name), sha256=one["sha256"]) for name, one in listed.items()}
    _remember(_memory(store, data_key), states)


def _damage(store: Store, folder: Path, manifest: Path, name: str) -> str:
    listed = read_json(manifest, lenient=True).get("files")
    if not isinstance(listed, dict):
        return ""  # created by a version that listed none
    for own, one in listed.items():
        if not (path := folder / own).is_file():
            return f"{own} is missing"
        if (size := path.stat().st_size) != one["bytes"]:
            return f"{own} has {size:,} bytes, not {one['bytes']:,}"
    if store.is_mounted:
        return ""
    memory = _memory(store, name)
    verified = _verified(memory)
    now: dict[str, FileState] = {}
    for own, one in listed.items():
        state, known = FileState.of(folder / own), verified.get(own)
        now[own] = known if known and state.is_as(known) else state.read(folder / own)
        if now[own].sha256 != one["sha256"]:
            return f"the content of {own} is not the one that was written"
    if now != verified:
        _remember(memory, now)
    return ""


def _memory(store: Store, name: str) -> Path:
    return store.cache / "verified" / (platform.node() or "machine") / f"{name}.json"


def _verified(memory: Path) -> dict[str, FileState]:
    raw = read_json(memory, lenient=True)
    states = {own: FileState.from_json(one) for own, one in raw.items()}
    return {own: state for own, state in states.items() if state is not None}


def _remember(memory: Path, states: Mapping[str, FileState]) -> None:
    with contextlib.suppress(OSError):  # the store of another user; the files are hashed again next time
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(memory, json.dumps({own: state.as_json() for own, state in states.items()}, indent=1))
