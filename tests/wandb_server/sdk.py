"""The unmodified SDK in a process of its own, as a trainer has it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class LoggedRun:
    init: Mapping[str, Any]
    """What `wandb.init` is given."""
    rows: Sequence[Mapping[str, float]]


def command(script: str, *words: str) -> list[str]:
    """The command of a script in this folder. With -P, since files next to it have names of packages."""
    return [sys.executable, "-P", str(SCRIPTS / script), *words]


def log_runs(runs: Sequence[LoggedRun], environment: Mapping[str, str], folder: Path) -> None:
    words = command("log_runs_script.py", json.dumps([asdict(one) for one in runs]))
    subprocess.run(words, env=environment, cwd=folder, check=True, timeout=120)
