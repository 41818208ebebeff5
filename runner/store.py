"""Which store a command means."""

from __future__ import annotations

import os
from pathlib import Path

from modal_app.layout import Store

VARIABLE = "AXOSWEEP_STORE"
DEFAULT = "out"


def open_store(asked: str | None) -> Store:
    """The store asked for, or AXOSWEEP_STORE, or ./out. Nothing is created."""
    return Store(Path(asked or os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute())
