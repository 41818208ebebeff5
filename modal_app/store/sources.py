"""Identifies this program by content: a hash over its source files, each by its path below `modal_app`.

Whatever is built from the sources and outlives a command (a deployed app, a preloaded trainer, a remembered verdict)
has this in its name, so changed sources never use what was built from earlier ones.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import modal_app

HERE = Path(next(iter(modal_app.__path__)))
"""The folder of this package."""
_FOLDER = str(HERE)
RUN = HERE / "run.py"
"""The entry of every process that needs the trainer's Python."""


def source_digest(*parts: str) -> str:
    """Hex sha256 of the Python files below `modal_app`, at any depth, and of the paths that they have there.

    `parts`: the only files and folders that count, by their paths below it; without one, all do. Raises
    FileNotFoundError for a part that does not exist: a renamed file would otherwise count for nothing.
    """
    digest = hashlib.sha256()
    for name in sorted(set(_files(parts)), key=lambda name: name.split("/")):
        with open(os.path.join(_FOLDER, name), "rb") as file:
            digest.update(name.encode() + b"\0" + file.read())
    return digest.hexdigest()


def _files(parts: tuple[str, ...]) -> Iterator[str]:
    """Their paths below `modal_app`. With pathlib, this takes longer than hashing what is in them."""
    for part in parts or ("",):
        place = os.path.join(_FOLDER, part) if part else _FOLDER
        if os.path.isdir(place):
            for folder, _, names in os.walk(place):
                below = folder[len(_FOLDER) + 1 :]
                yield from (f"{below}/{name}" if below else name for name in names if name.endswith(".py"))
        elif os.path.isfile(place):
            yield part
        else:
            raise FileNotFoundError(f"modal_app has no {part}, and its sources are to be hashed")
