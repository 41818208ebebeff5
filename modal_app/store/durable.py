"""Flushes what is written to the disk, if that disk outlives the writing process. Standard library.

A container's own disk does not, so flushing it would only delay the training.
"""

from __future__ import annotations

import os
from pathlib import Path

SCRATCH = Path("/scratch")
"""On the own disk of a container on Modal: a folder per attempt, which is removed with it."""


def outlasts(path: Path) -> bool:
    """Whether the disk that a path is on survives a power cut, or the end of its container."""
    return not path.resolve().is_relative_to(SCRATCH)


def flush(descriptor: int, path: Path) -> None:
    """Flush an open file, or a folder, to the disk."""
    if outlasts(path):
        os.fsync(descriptor)
