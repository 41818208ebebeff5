"""Which commit axosweep itself was started from, when it was started from a checkout."""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import runner

TIMEOUT_S = 5.0


@functools.cache
def commit() -> str:
    """The commit, with `-dirty` after it when tracked files differ from it; empty when this is not a checkout.

    Asked of git once: a process runs what it has loaded, whatever is committed later.
    """
    root = Path(next(iter(runner.__path__))).resolve().parent
    if not (root / ".git").exists():  # installed, perhaps inside another checkout
        return ""
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
