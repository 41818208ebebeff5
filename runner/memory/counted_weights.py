"""The number of weights in a folder, from the headers of its safetensors files. Reads no weights."""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

from runner.keys.hub_models import FLOATS

MOST_HEADER = 2**25
"""Bytes of the largest header that is read; one tensor takes about a hundred."""
MOST_FILES = 1000


@functools.cache
def weights_in_folder(folder: Path) -> int | None:
    """None if there are no such files, or one of them cannot be read or has packed weights."""
    try:
        files = sorted(file for file in folder.glob("*.safetensors") if not file.name.startswith("adapter_"))
        counts = [_weights_in(file) for file in files[:MOST_FILES]]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return None  # the header of a damaged file may be anything
    known = [one for one in counts if one is not None]
    return sum(known) or None if len(known) == len(files) else None


def _weights_in(file: Path) -> int | None:
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        if size > MOST_HEADER:
            return None
        header: dict[str, Any] = json.loads(opened.read(size))
    tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
    if any(tensor["dtype"] not in FLOATS for tensor in tensors):
        return None
    return sum(math.prod(map(int, tensor["shape"])) for tensor in tensors)
