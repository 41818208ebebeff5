"""Files to which lines are only appended, each a JSON object.

A line is written with one call. A kill can cut off the last line at any byte. Readers skip such a line, and the next
writer starts a new line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.store.step import name_file


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    line = json.dumps(value, sort_keys=True).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        cut_off = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        left = b"\n" + line if cut_off else line
        while left:  # on an almost full disk, a part of it is written first
            left = left[os.write(descriptor, left) :]
    except OSError as error:
        raise name_file(error, path) from error.__cause__
    finally:
        os.close(descriptor)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Every complete line, oldest first; none if there is no such file."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [value for value in map(_parsed, lines) if isinstance(value, dict)]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None  # cut off by a kill
