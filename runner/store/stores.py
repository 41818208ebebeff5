"""The store that a command means."""

from __future__ import annotations

import os
from pathlib import Path

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


def store_of(executor: str, requested: str | None) -> Store:
    """The store of an executor's runs. For Modal, it is a mirror of the Volumes, in a folder of the local store."""
    local = open_store(requested)
    return local if executor == "local" else Store(local.root / executor)


def stores(requested: str | None) -> list[Store]:
    """The local store and its existing mirrors."""
    local = open_store(requested)
    return [local, *(Store(local.root / name) for name in MIRRORS if (local.root / name / "sweeps").is_dir())]


def is_mirror(store: Store) -> bool:
    """Whether a store is a mirror of Volumes."""
    return store.root.name in MIRRORS and (store.root / "sweeps").is_dir()
