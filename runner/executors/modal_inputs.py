"""Uploads the local inputs of a sweep to the cache Volume. There they are named by their content, and never change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import modal

from modal_app.store import pins
from modal_app.store.content import files_below
from modal_app.store.layout import Store
from runner.console.transfer import progress
from runner.errors import SweepError
from runner.executors.modal_copies import listed


def upload_inputs(cache: modal.Volume, store: Store, names: Sequence[str]) -> None:
    """What of `names` (paths below the store's root) is not on the cache Volume yet, each with its note.

    Raises SweepError for an input that has changed, also while it was uploaded: it is then removed from the Volume.
    """
    there = {PurePosixPath(entry.path).name for entry in listed(cache, "inputs")}
    missing = [name for name in names if PurePosixPath(name).name not in there]
    if not missing:
        return
    _check([store.root / name for name in missing])
    sizes = {name: _size(store.root / name) for name in missing}
    with progress(sum(sizes.values()), "upload") as watch:
        for name in missing:
            _upload(cache, store, name)
            watch(sizes[name])


def _upload(cache: modal.Volume, store: Store, name: str) -> None:
    """One input, with its note: all of it appears on the Volume at once, or nothing."""
    note = [f"{name}{pins.SUFFIX}"] if pins.note_of(store.root / name).is_file() else []
    with cache.batch_upload(force=True) as batch:
        put_input(batch, (store.root / name).resolve(), f"/{name}")
        for one in note:
            batch.put_file(store.root / one, f"/{one}")
    try:
        _check([store.root / name])
    except SweepError:
        for one in [name, *note]:
            cache.remove_file(one, recursive=True)
        raise


def _size(path: Path) -> int:
    files = files_below(path) if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def put_input(batch: modal.volume.AbstractVolumeUploadContextManager, local: Path, there: str) -> None:
    """A local file or folder, as its identity was made: Modal's client would take hidden files along (a second copy of
    the weights in .git, an .env), and leave out linked folders."""
    if not local.is_dir():
        batch.put_file(local, there)
        return
    for file in files_below(local):
        batch.put_file(file, f"{there}/{file.relative_to(local).as_posix()}")


def _check(targets: Sequence[Path]) -> None:
    """A start checkpoint has no note. It is a copy."""
    try:
        for target in targets:
            if pins.note_of(target).is_file():
                pins.check(target)
    except pins.InputChanged as error:
        raise SweepError(f"Nothing was submitted: {error}.") from error
