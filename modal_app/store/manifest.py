"""The files that a step leaves for good, with their sizes and sha256: what was taken home can be held against that.
Standard library."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any


def listed_files(folder: Path, *, without: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Every file below a folder by its name there. `without`: beginnings of names at its top that are left out."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    kept = [path for path in found if not path.relative_to(folder).parts[0].startswith(tuple(without))]
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in kept
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
