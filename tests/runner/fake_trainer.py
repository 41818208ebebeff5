"""Stands in for the trainer's Python, in the launcher's own words with it: it answers questions about configs as it is
told, and runs steps that do what their config says, if any. Makes tests of the launcher fast; what Axolotl really says
is tested elsewhere, and what our own server and worker do with hollow_trainer.py, which runs them.
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
    """Its folder, for AXOSWEEP_TRAINER. It says that its Python is of this `version`. `refused`: problems of each
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
    """The questions that it was asked, a list for each time."""
    log = folder / ASKED
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
