"""A trainer environment in which all heavy packages are empty: the real server and worker run, and "training" is a line
of Python from the config (`probe`). So a test can look at the surroundings of a step in milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import Step, StepKind, Tracking
from tests.modal_app.steps import Warm

HOLLOW_PACKAGES = Path(__file__).with_name("hollow_packages.py")


def make_trainer(folder: Path) -> Path:
    """The python of a hollow environment."""
    python, packages = folder / "bin" / "python", folder / "lib" / "python3" / "site-packages"
    python.parent.mkdir(parents=True)
    for name in ("old", "old-1.dist-info"):
        (packages / name).mkdir(parents=True)
    shutil.copy(HOLLOW_PACKAGES, packages / "sitecustomize.py")
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages}${{PYTHONPATH:+:$PYTHONPATH}} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@contextlib.contextmanager
def serving(python: Path, store: Store, **variables: str) -> Iterator[Warm]:
    """A preloaded trainer, and the command that has started it."""
    warm = Warm.start(python, store, {**os.environ, **variables})
    try:
        yield warm
    finally:
        with contextlib.suppress(ProcessLookupError):
            warm.process.kill()
        warm.process.wait()


def make_store(root: Path) -> Store:
    """A store with a dataset that looks prepared to everything in these tests."""
    store = Store(root)
    store.manifest("data").parent.mkdir(parents=True)
    store.manifest("data").write_text(json.dumps({"attempt": 1, "started_at": 0.0, "finished_at": 1.0}))
    return store


def probing(key: str, probe: str, **config: Any) -> Step:
    """A step that runs `probe` in place of a training, and then fails, since it has trained nothing."""
    return Step(StepKind.TRAIN, key, {"probe": probe, **config}, "data", tracking=Tracking("disabled"))


def found(store: Store, key: str) -> Any:
    """What a probe has written to found.json in its attempt's folder."""
    attempt = store.folder(StepKind.TRAIN, key).attempts()[-1]
    return json.loads((attempt.path / "found.json").read_text())
