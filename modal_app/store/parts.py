"""The phases of a worker under the names that people read in a receipt. Standard library."""

from __future__ import annotations

from collections.abc import Mapping

_PART_OF = {"import": "import", "config": "prepare", "prepare": "prepare", "load": "load", "first": "first step"}
_PART_OF |= {"train": "train", "eval": "evaluate", "save": "save"}
OTHER = "other"
WORKER_PARTS = (*dict.fromkeys(_PART_OF.values()), OTHER)
"""In chronological order."""


def parts_of(phases: Mapping[str, float]) -> dict[str, float]:
    """Seconds by part.

    >>> parts_of({"config": 1.0, "prepare": 2.0, "eval": 3.0, "merge": 4.0})
    {'prepare': 3.0, 'evaluate': 3.0, 'other': 4.0}
    """
    parts: dict[str, float] = {}
    for name, seconds in phases.items():
        part = _PART_OF.get(name, OTHER)
        parts[part] = parts.get(part, 0.0) + seconds
    return parts
