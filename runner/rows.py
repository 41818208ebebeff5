"""A local JSONL dataset, looked at before anything is started: the first row that cannot be one is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.errors import SweepError

LARGEST_BYTES = 256 * 1024 * 1024
"""A larger file is left to the worker: reading it here would take longer than it saves."""


def check_rows(dataset: Mapping[str, Any]) -> None:
    """Raises SweepError with file and line for a row that is no JSON object, or has no conversation where it must."""
    path = Path(str(dataset.get("path", ""))).expanduser()
    if path.suffix != ".jsonl" or not path.is_file() or path.stat().st_size > LARGEST_BYTES:
        return
    messages = str(dataset.get("field_messages") or "messages") if dataset.get("type") == "chat_template" else None
    rows = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                rows += 1
                if problem := _problem(line, messages):
                    raise SweepError(f"{path} line {number}: {problem}")
    if not rows:
        raise SweepError(f"{path} has no rows. A dataset is one JSON object a line.")


def _problem(line: bytes, messages: str | None) -> str:
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON ({error})."
    if not isinstance(row, dict):
        return f"a row is a JSON object, and this is a {type(row).__name__}."
    if messages is None or (isinstance(row.get(messages), list) and row[messages]):
        return ""
    has = ", ".join(map(str, row)) or "nothing"
    return (
        f"type chat_template reads a list of messages under `{messages}`, and this row has {has}. "
        "Another name is said with datasets.0.field_messages=NAME."
    )
