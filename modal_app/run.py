"""The one entry of every process that needs the trainer's Python: `python modal_app/run.py NAME [WORDS]`.

NAME is one of ENTRIES; the `main` of each module reads the remaining words and returns the exit code.
The package is registered by its path, and its parent folder is not put on sys.path: in an installed wheel that folder
is the launcher's site-packages, whose packages must not reach the trainer.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path

PACKAGE = "modal_app"
ENTRIES = {
    "worker": "worker",
    "preloaded-trainer": "warm.server",
    "serve": "serving.server",
    "validate": "oneshot.validate",
    "fetch": "oneshot.fetch",
    "tasks": "oneshot.tasks",
}
"""Name -> module of this package."""


def main() -> int:
    name = sys.argv.pop(1)
    sys.argv[0] = name
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    register(here)
    # Process pools that use spawn would import the main module again by this path, which has another `main` now.
    del sys.modules["__main__"].__file__
    try:
        return int(importlib.import_module(f"{PACKAGE}.{ENTRIES[name]}").main())
    except Exception as error:  # the process boundary: its caller knows no more than the exit code
        from modal_app.store import out_of_memory  # now that the package is registered

        if not out_of_memory.is_out_of_memory(error):
            raise
        traceback.print_exc()
        return out_of_memory.EXIT_CODE


def register(here: Path) -> None:
    """Make the package in the folder `here` importable by its name."""
    spec = importlib.util.spec_from_file_location(PACKAGE, here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    sys.exit(main())
