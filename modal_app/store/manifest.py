"""The files that a step leaves permanently, with their sizes and sha256, so that a copy can be compared with that list.
Standard library."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from modal_app.store.content import flush_folders, flushed_sha256


def listed_files(folder: Path, *, without: Collection[str] = ()) -> dict[str, dict[str, Any]]:
    """Every file below a folder by its name there, once it is on the disk. `without`: beginnings of names at its top
    that are left out."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [path for path in found if not path.relative_to(folder).parts[0].startswith(tuple(without))]
    listed = {path.relative_to(folder).as_posix(): _listed(path) for path in paths}
    flush_folders(folder)
    return listed


def _listed(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": flushed_sha256(path)}
