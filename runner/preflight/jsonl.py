"""Check a local JSONL dataset before anything is started: count its rows, and find the first invalid one."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.errors import SweepError

LARGEST_BYTES = 256 * 1024 * 1024
"""A larger file is checked by the worker only, since reading it here would take too long."""


def check_rows(dataset: Mapping[str, Any]) -> int | None:
    """The number of rows of a local JSONL file; None for anything else, which is not checked.

    Raises SweepError with file and line for a row that is not a JSON object, or lacks a column that its `type` reads,
    or has null in it: Axolotl would train on the word None.
    """
    path = Path(str(dataset.get("path", ""))).expanduser()
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    stat = path.stat()
    if stat.st_size > LARGEST_BYTES:
        return None
    return _checked(path, (stat.st_size, stat.st_mtime_ns), *_needed(dataset))


def _needed(dataset: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """The columns that every row must have: the one with a conversation, and those that must not be null. Only columns
    that are certain to be needed."""
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
        raise SweepError(f"{path} has no rows. A dataset has one JSON object on each line.")
    return rows


def _row(line: bytes) -> Mapping[str, Any] | str:
    """The row, or what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON ({error})."
    return row if isinstance(row, dict) else f"expected a JSON object, found a {type(row).__name__}."


def _no_conversation(row: Mapping[str, Any], messages: str | None) -> str:
    if messages is None or (isinstance(row.get(messages), list) and row[messages]):
        return ""
    return (
        f"type chat_template reads a list of messages under `{messages}`, and this row has {_has(row)}. "
        "Set another name with datasets.0.field_messages=NAME."
    )


def _lacks(row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    if all(row.get(column) is not None for column in columns):
        return ""
    return (
        f"its type reads {' and '.join(columns)}, and this row has {_has(row)}. "
        "Fix or remove the row, or set another type with datasets.0.type=NAME."
    )


def _has(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} (null)" if value is None else name for name, value in row.items()) or "nothing"
