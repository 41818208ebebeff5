"""Which store a command means."""

from __future__ import annotations

import os
from pathlib import Path

from modal_app.store.layout import Store
from runner.errors import SweepError

VARIABLE = "AXOSWEEP_STORE"
DEFAULT = "out"
MIRRORS = ("modal",)


def open_store(asked: str | None) -> Store:
    """The store asked for, or AXOSWEEP_STORE, or ./out. Nothing is created; SweepError when it is no folder."""
    root = Path(asked or os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()
    for path in (root, *root.parents):
        if os.path.exists(path) and not os.path.isdir(path):
            raise SweepError(f"Results cannot be kept in {root}: {path} is no folder. Name another: store=DIR.")
    return Store(root)


def store_of(executor: str, asked: str | None) -> Store:
    """Where an executor's runs are: done means done there. Modal's is a mirror of its Volumes, below the local one."""
    local = open_store(asked)
    return local if executor == "local" else Store(local.root / executor)


def stores(asked: str | None) -> list[Store]:
    """The local store and the mirrors below it that exist."""
    local = open_store(asked)
    return [local, *(Store(local.root / name) for name in MIRRORS if (local.root / name / "sweeps").is_dir())]


def is_mirror(store: Store) -> bool:
    """Whether a store only shows what lies elsewhere."""
    return store.root.name in MIRRORS and (store.root / "sweeps").is_dir()
