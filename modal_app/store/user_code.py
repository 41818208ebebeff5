"""The user's own Python that a config names (plugins, reward functions, dataset formats): a folder of the store.

Its content is an input like any other, so a run imports exactly the files that its key covers, on every machine.
Standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG_KEY = "user_code"
"""The key by which a keyed config names the folder: `inputs/...`. Axolotl does not get it."""
MODULES = "PYTHONPATH"


def make_importable(config: Mapping[str, Any], root: Path) -> None:
    """Let this process, and those that it starts, import a keyed config's Python. `root`: of the store."""
    name = config.get(CONFIG_KEY)
    if isinstance(name, str):
        add_to_path(root / name)


def add_to_path(folder: Path) -> None:
    """Put the folder before all others on the path, like the folder that Python is started in. No bytecode is written
    there: the folder's content is its identity."""
    entries = [str(folder), *filter(None, [os.environ.get(MODULES)])]
    os.environ |= {MODULES: os.pathsep.join(entries), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder))
