"""A local JSONL dataset, looked at before anything is started: counted, and the first row that cannot be one named."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.errors import SweepError

LARGEST_BYTES = 256 * 1024 * 1024
"""A larger file is left to the worker: reading it here would take longer than it saves."""


def check_rows(dataset: Mapping[str, Any]) -> int | None:
    """The rows of a local JSONL file; None for anything else, which is not looked at.

    Raises SweepError with file and line for a row that is no JSON object, or lacks what its `type` reads, or has null
    there: Axolotl would train on the word None.
    """
    path = Path(str(dataset.get("path", ""))).expanduser()
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    stat = path.stat()
    if stat.st_size > LARGEST_BYTES:
        return None
    return _checked(path, (stat.st_size, stat.st_mtime_ns), *_needed(dataset))


def _needed(dataset: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """The column with a conversation, and those with anything but null. No row may lack one. Only what is sure."""
    match dataset.get("type"):
        case "chat_template":
            return str(dataset.get("field_messages") or "messages"), ()
        case "alpaca":
            return None, ("instruction", "output")
        case "completion":
            return None, (str(dataset.get("field") or "text"),)
    return None, ()


@functools.lru_cache(maxsize=256)  # the runs of a sweep share their files
def _checked(path: Path, stat: tuple[int, int], messages: str | None, columns: tuple[str, ...]) -> int:
    rows = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows += 1
                row = _row(line)
                problem = row if isinstance(row, str) else _no_conversation(row, messages) or _lacks(row, columns)
                if problem:
                    raise SweepError(f"{path} line {number}: {problem}")
    if not rows:
        raise SweepError(f"{path} has no rows. A dataset is one JSON object a line.")
    return rows


def _row(line: bytes) -> Mapping[str, Any] | str:
    """The row, or what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON ({error})."
    return row if isinstance(row, dict) else f"a row is a JSON object, and this is a {type(row).__name__}."


def _no_conversation(row: Mapping[str, Any], messages: str | None) -> str:
    if messages is None or (isinstance(row.get(messages), list) and row[messages]):
        return ""
    return (
        f"type chat_template reads a list of messages under `{messages}`, and this row has {_has(row)}. "
        "Another name is said with datasets.0.field_messages=NAME."
    )


def _lacks(row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    if all(row.get(column) is not None for column in columns):
        return ""
    return (
        f"its type reads {' and '.join(columns)}, and this row has {_has(row)}. "
        "Mend or remove the row; another type is said with datasets.0.type=NAME."
    )


def _has(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} (null)" if value is None else name for name, value in row.items()) or "nothing"
