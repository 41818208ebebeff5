"""The store that a command means."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from modal_app.store.full_disk import full_disk
from modal_app.store.layout import Store
from runner.errors import SweepError

VARIABLE = "AXOSWEEP_STORE"
DEFAULT = "out"
MIRRORS = ("modal",)


def open_store(requested: str | None) -> Store:
    """The requested store, or AXOSWEEP_STORE, or ./out. Nothing is created; SweepError when it is not a folder."""
    root = Path(requested or os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()
    for path in (root, *root.parents):
        if os.path.exists(path) and not os.path.isdir(path):
            raise SweepError(f"Results cannot be stored in {root}: {path} is not a folder. Name another: store=DIR.")
    return Store(root)


def check_writable(store: Store) -> None:
    """Raises SweepError for a store that cannot be written to, or not be created. Leaves nothing."""
    root = next((path for path in (store.root, *store.root.parents) if path.is_dir()), store.root)
    for place in (root, *(path for path in (store.sweeps, store.runs, store.prepared) if path.is_dir())):
        try:
            os.rmdir(tempfile.mkdtemp(prefix=".axosweep-", dir=place))
        except OSError as error:
            if full := full_disk(error):
                raise SweepError(f"Nothing was started. {full}") from error
            what = "written to" if place == store.root or place != root else "created"
            raise SweepError(
                f"The store {store.root} cannot be {what}: {place}: {error.strerror}. Name another: store=DIR."
            ) from error


@contextlib.contextmanager
def while_it_exists(store: Store) -> Iterator[None]:
    """Raises SweepError when the store's folder disappears during the block."""
    try:
        yield
    except FileNotFoundError as error:
        if store.root.is_dir():
            raise
        raise SweepError(
            f"The store {store.root} was moved or removed while it was in use. Move it back, or name its new place "
            "with store=DIR (--store DIR): the same command then continues where this one ended."
        ) from error


def store_of(executor: str, requested: str | None) -> Store:
    """The store of an executor's runs. For Modal, it is a mirror of the Volumes, in a folder of the local store.

    Raises SweepError for a local store that would be taken for a mirror.
    """
    local = open_store(requested)
    if executor != "local":
        return Store(local.root / executor)
    if local.root.name in MIRRORS:
        raise SweepError(
            f"Runs of this machine cannot be stored in {local.root}: a folder of this name is the mirror of runs on "
            "Modal. Name another: store=DIR."
        )
    return local


def stores(requested: str | None) -> list[Store]:
    """The local store and its existing mirrors."""
    local = open_store(requested)
    return [local, *(Store(local.root / name) for name in MIRRORS if (local.root / name / "sweeps").is_dir())]


def is_mirror(store: Store) -> bool:
    """Whether a store is a mirror of Volumes."""
    return store.root.name in MIRRORS and (store.root / "sweeps").is_dir()
