"""Read a local JSONL dataset before anything is started: what its rows have, and the first row that cannot be one."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.errors import SweepError

LARGEST_BYTES = 256 * 1024 * 1024
"""A larger file is checked by the worker only, since reading it here would take too long."""
TOKENIZED = frozenset(("input_ids", "attention_mask", "labels"))
"""Columns of rows that Axolotl takes as they are, whatever their `type` is."""


@dataclass(frozen=True, slots=True)
class LocalRows:
    """The rows of a JSONL file on this machine. What is said of messages is that of the conversation's column."""

    count: int
    bytes: int
    columns: Mapping[str, int] = field(default_factory=dict)
    """Column -> rows in which it is not null."""
    empty: Mapping[str, int] = field(default_factory=dict)
    """Column -> rows in which it is an empty text."""
    roles: Mapping[str, int] = field(default_factory=dict)
    """Role, as the rows spell it -> messages."""
    properties: Mapping[str, int] = field(default_factory=dict)
    """Property of a message -> messages in which it is not null."""
    messages: int = 0
    parts: bool = False
    """Whether the content of a message is a list of parts, which may say for themselves what is trained."""
    digests: frozenset[int] = frozenset()
    """Of the rows' texts: equal rows have equal ones. Only this process can compare them."""

    @property
    def tokenized(self) -> bool:
        return set(self.columns) >= TOKENIZED


def check_rows(dataset: Mapping[str, Any]) -> int | None:
    """The number of rows of a local JSONL file; None for anything else, which is not checked.

    Raises SweepError with file and line for a row that is not a JSON object, or lacks a column that its `type` reads,
    or has null in it: Axolotl would train on the word None.
    """
    rows = rows_of(dataset)
    return None if rows is None else rows.count


def rows_of(dataset: Mapping[str, Any]) -> LocalRows | None:
    """What the rows of a local JSONL file have; None for anything else. Raises SweepError as check_rows does."""
    path = Path(str(dataset.get("path", ""))).expanduser()
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    stat = path.stat()
    if stat.st_size > LARGEST_BYTES:
        return None
    return _read(path, (stat.st_size, stat.st_mtime_ns), _conversation(dataset), *_needed(dataset))


def properties_of(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Property of a message, as chat templates call it -> as the rows do: `role` and `content` among them."""
    mapped = dataset.get("message_property_mappings")
    own = {str(key): str(one) for key, one in mapped.items()} if isinstance(mapped, Mapping) else {}
    for key in ("role", "content"):
        own.setdefault(key, str(dataset.get(f"message_field_{key}") or key))
    return own


def messages_column(dataset: Mapping[str, Any]) -> str:
    return str(dataset.get("field_messages") or "messages")


def _conversation(dataset: Mapping[str, Any]) -> tuple[str, str, str]:
    """The column with a conversation, and what its messages call their role and their content."""
    properties = properties_of(dataset)
    return messages_column(dataset), properties["role"], properties["content"]


def _needed(dataset: Mapping[str, Any]) -> tuple[str | None, tuple[str, ...]]:
    """The columns that every row must have: the one with a conversation, and those that must not be null. Only columns
    that are certain to be needed."""
    match dataset.get("type"):
        case "chat_template":
            return messages_column(dataset), ()
        case "alpaca":
            return None, ("instruction", "output")
        case "completion":
            return None, (str(dataset.get("field") or "text"),)
    return None, ()


@functools.lru_cache(maxsize=256)  # the runs of a sweep share their files
def _read(
    path: Path,
    stat: tuple[int, int],
    conversation: tuple[str, str, str],
    messages: str | None,
    columns: tuple[str, ...],
) -> LocalRows:
    tally = _Tally(*conversation)
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line := line.strip():
                row = _row(line)
                problem = row if isinstance(row, str) else _no_conversation(row, messages) or _lacks(row, columns)
                if problem or isinstance(row, str):
                    raise SweepError(f"{path} line {number}: {problem}")
                tally.add(row, hash(line))
    if not tally.rows:
        raise SweepError(f"{path} has no rows. A dataset has one JSON object on each line.")
    return tally.result(stat[0])


@dataclass(slots=True)
class _Tally:
    column: str
    role: str
    content: str
    rows: int = 0
    messages: int = 0
    parts: bool = False
    columns: Counter[str] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    properties: Counter[str] = field(default_factory=Counter)
    digests: set[int] = field(default_factory=set)

    def add(self, row: Mapping[str, Any], digest: int) -> None:
        self.rows += 1
        self.digests.add(digest)
        for name, value in row.items():
            if value is not None:
                self.columns[name] += 1
            if value == "":
                self.empty[name] += 1
        messages = _listed(row.get(self.column))
        for message in messages:
            if isinstance(message, dict):
                self._add_message(message)

    def _add_message(self, message: Mapping[str, Any]) -> None:
        self.messages += 1
        self.properties.update(name for name, value in message.items() if value is not None)
        if (role := message.get(self.role)) is not None:
            self.roles[str(role)] += 1
        self.parts = self.parts or isinstance(message.get(self.content), list)

    def result(self, size: int) -> LocalRows:
        return LocalRows(
            count=self.rows,
            bytes=size,
            columns=self.columns,
            empty=self.empty,
            roles=self.roles,
            properties=self.properties,
            messages=self.messages,
            parts=self.parts,
            digests=frozenset(self.digests),
        )


def _listed(messages: Any) -> list[Any]:
    """The messages of a conversation, which Axolotl also reads from a JSON text."""
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except ValueError:
            return []
    return messages if isinstance(messages, list) else []


def _row(line: bytes) -> Mapping[str, Any] | str:
    """The row, or what is wrong with it."""
    try:
        row = json.loads(line)
    except ValueError as error:
        return f"not JSON ({error})."
    return row if isinstance(row, dict) else f"expected a JSON object, found a {type(row).__name__}."


def _no_conversation(row: Mapping[str, Any], messages: str | None) -> str:
    if messages is None or row.keys() >= TOKENIZED or _listed(row.get(messages)):
        return ""
    return (
        f"type chat_template reads a list of messages under `{messages}`, and this row has {_has(row)}. "
        "Set another name with datasets.0.field_messages=NAME."
    )


def _lacks(row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    if row.keys() >= TOKENIZED or all(row.get(column) is not None for column in columns):
        return ""
    return (
        f"its type reads {' and '.join(columns)}, and this row has {_has(row)}. "
        "Fix or remove the row, or set another type with datasets.0.type=NAME."
    )


def _has(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} (null)" if value is None else name for name, value in row.items()) or "nothing"
