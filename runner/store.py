"""Which store a command means."""

from __future__ import annotations

import os
from pathlib import Path

from modal_app.layout import Store
from runner.errors import SweepError

VARIABLE = "AXOSWEEP_STORE"
DEFAULT = "out"


def open_store(asked: str | None) -> Store:
    """The store asked for, or AXOSWEEP_STORE, or ./out. Nothing is created; SweepError when it is no folder."""
    root = Path(asked or os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()
    for path in (root, *root.parents):
        if os.path.exists(path) and not os.path.isdir(path):
            raise SweepError(f"Results cannot be kept in {root}: {path} is no folder. Name another: store=DIR.")
    return Store(root)
