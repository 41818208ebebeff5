"""Stands in for the trainer's Python, with the launcher's own protocol: it answers questions about configs as the test
says, and runs steps that do what their config says. This makes tests of the launcher fast. Axolotl's real answers are
tested elsewhere, and our own server and worker with hollow_trainer.py, which runs them.
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.runner.fake_trainer_script import ASKED, BEHAVIOUR, LAST_WORDS

__all__ = ["LAST_WORDS", "asked", "make_trainer"]

SCRIPT = Path(__file__).with_name("fake_trainer_script.py")


def make_trainer(
    folder: Path,
    *,
    refused: Sequence[Mapping[str, Any]] = (),
    warned: Sequence[str] = (),
    works: bool = False,
    version: str = "3.12",
) -> Path:
    """Its folder, for AXOSWEEP_TRAINER. It reports this `version` as that of its Python. `refused`: problems of each
    config that has their first key. Unless it `works`, each step ends with LAST_WORDS."""
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    behaviour = {"refused": list(refused), "warned": list(warned), "works": works}
    (folder / BEHAVIOUR).write_text(json.dumps(behaviour))
    says = f'[ "$3" = -c ] && exec echo {version}'
    python.write_text(f'#!/bin/sh\n{says}\nexec {shlex.join([sys.executable, "-S", str(SCRIPT), str(folder)])} "$@"\n')
    python.chmod(0o755)
    return folder


def asked(folder: Path) -> list[list[Mapping[str, Any]]]:
    """The questions that it got, a list for each time."""
    log = folder / ASKED
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
