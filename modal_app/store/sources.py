"""What this program is, by content: a hash over its source files, each by its path below `modal_app`.

Whatever is built from the sources and outlives a command (a deployed app, a preloaded trainer, a remembered verdict)
has this in its name, so changed sources never use what was built from earlier ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import modal_app

HERE = Path(next(iter(modal_app.__path__)))
"""The folder of this package."""
RUN = HERE / "run.py"
"""The entry of every process that needs the trainer's Python."""


def source_digest(*parts: str) -> str:
    """Hex sha256 of the Python files below `modal_app`, at any depth, and of the paths that they have there.

    `parts`: the only files and folders that count, by their paths below it; without one, all do. Raises
    FileNotFoundError for a part that does not exist: a renamed file would otherwise count for nothing.
    """
    digest = hashlib.sha256()
    for path in sorted(set(_files(parts))):
        digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _files(parts: tuple[str, ...]) -> Iterator[Path]:
    for place in [HERE / part for part in parts] or [HERE]:
        if place.is_dir():
            yield from place.rglob("*.py")
        elif place.is_file():
            yield place
        else:
            raise FileNotFoundError(f"modal_app has no {place.relative_to(HERE)}, and its sources are to be hashed")
