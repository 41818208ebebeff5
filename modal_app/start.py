"""Makes a file of this package runnable by its path: registers the package from where it lies, then runs the module.

The parent folder is not put on sys.path: in an installed wheel that is the launcher's site-packages, whose packages
must not reach the trainer.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import NoReturn

PACKAGE = "modal_app"


def run(module: str) -> NoReturn:
    """Run `modal_app.<module>.main` and exit with what it returns."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != here]
    register(here)
    # Pools that spawn import the main module again, by this path, and would find a stranger there.
    del sys.modules["__main__"].__file__
    sys.exit(importlib.import_module(f"{PACKAGE}.{module}").main())


def register(here: Path) -> None:
    spec = importlib.util.spec_from_file_location(PACKAGE, here / "__init__.py", submodule_search_locations=[str(here)])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = package
    spec.loader.exec_module(package)
