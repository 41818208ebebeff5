"""Read a local JSON dataset before anything is started: what its rows have, and which cannot be rows of it.

A .jsonl file has a row on each line; a .json file may also be a list of rows.
"""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.errors import SweepError
from runner.preflight.row_formats import TOKENIZED, listed_messages
from runner.preflight.wrong_rows import ENOUGH, WrongRows

LARGEST_BYTES = 256 * 1024 * 1024
"""A larger file is checked by the worker only, since reading it here would take too long."""

THOUGHTS = frozenset(("reasoning_content", "reasoning", "thinking"))
"""Properties whose text templates write next to the content of a message, or in place of one."""


@dataclass(frozen=True, slots=True)
class LocalRows:
    """The rows of a JSON or JSONL file on this machine. Its messages are those of the conversation's column."""

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
    marked: int = 0
    """Messages whose own field says that they are trained (message_field_training)."""
    characters: int = 0
    """Of the messages' contents."""
    longest: int = 0
    """Characters of the contents of the longest conversation."""
    most_messages: int = 0
    """Of a conversation."""
    without_content: Mapping[str, int] = field(default_factory=dict)
    """Role -> messages whose content is null or missing, and that have nothing in its place, such as tool calls."""
    first_without_content: str = ""
    """The place of the first row with such a message: `line 17`."""
    empty_content: Mapping[str, int] = field(default_factory=dict)
    """Role -> messages whose content is an empty text, and that have nothing in its place."""
    digests: frozenset[int] = frozenset()
    """Of the rows' texts: equal rows have equal ones. Only this process can compare them."""

    @property
    def tokenized(self) -> bool:
        return set(self.columns) >= TOKENIZED


def check_rows(dataset: Mapping[str, Any]) -> int | None:
    """The number of rows of a local JSON or JSONL file; None for anything else, which is not checked.

    Raises SweepError with file and line for a row that is not a JSON object, or lacks a column that its `type` reads,
    or has null in it: Axolotl would train on the word None.
    """
    rows = rows_of(dataset)
    return None if rows is None else rows.count


def rows_of(dataset: Mapping[str, Any]) -> LocalRows | None:
    """What the rows of a local JSON or JSONL file have; None for anything else. Raises SweepError like check_rows."""
    path = Path(str(dataset.get("path", ""))).expanduser()
    if path.suffix not in (".jsonl", ".json") or not path.is_file():
        return None
    stat = path.stat()
    if stat.st_size > LARGEST_BYTES or (path.suffix == ".json" and not _has_rows_on_lines(path) and not _is_list(path)):
        return None
    return _read(path, (stat.st_size, stat.st_mtime_ns), conversation_of(dataset), *_needed(dataset))


def properties_of(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Property of a message, as chat templates call it -> as the rows do: `role` and `content` among them."""
    mapped = dataset.get("message_property_mappings")
    own = {str(key): str(one) for key, one in mapped.items()} if isinstance(mapped, Mapping) else {}
    for key in ("role", "content"):
        own.setdefault(key, str(dataset.get(f"message_field_{key}") or key))
    return own


def messages_column(dataset: Mapping[str, Any]) -> str:
    return str(dataset.get("field_messages") or "messages")


Conversation = tuple[str, str, str, str]


def conversation_of(dataset: Mapping[str, Any]) -> Conversation:
    """The column with a conversation, and what its messages call their role, their content, and whether they are
    trained. Segments are read as messages whose role is their label."""
    if dataset.get("type") == "input_output":
        return "segments", "label", "text", ""
    properties = properties_of(dataset)
    mark = str(dataset.get("message_field_training") or "")
    return messages_column(dataset), properties["role"], properties["content"], mark


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
    conversation: Conversation,
    messages: str | None,
    columns: tuple[str, ...],
) -> LocalRows:
    tally, wrong = _Tally(*conversation), WrongRows(messages, columns)
    for place, row, digest in rows_in(path):
        if not isinstance(row, str) and not wrong.is_wrong(row):
            tally.add(row, digest, place)
            continue
        wrong.add(row, place)
        if len(wrong.places) == ENOUGH and not tally.rows:
            break
    if wrong.places:
        raise SweepError(f"{path} {wrong.message(some_are_right=bool(tally.rows))}")
    if not tally.rows:
        raise SweepError(f"{path} has no rows. A dataset has one JSON object on each line.")
    return tally.result(stat[0])


Rows = Iterator[tuple[str, Mapping[str, Any] | str, int]]
"""Of each row: where it is, what it is or what is wrong with it, and its digest."""


def rows_in(path: Path) -> Rows:
    return _rows_of_list(path) if _is_list(path) else _rows_on_lines(path)


def _rows_on_lines(path: Path) -> Rows:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line := line.strip():
                yield f"line {number}", _row(line), hash(line)


def _rows_of_list(path: Path) -> Rows:
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{path}: not JSON ({error}).") from error
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", _as_row(row), hash(json.dumps(row))


def _is_list(path: Path) -> bool:
    """Whether a .json file is a list of rows."""
    with path.open("rb") as file:
        return path.suffix == ".json" and file.read(1024).lstrip()[:1] == b"["


def _has_rows_on_lines(path: Path) -> bool:
    with path.open("rb") as file:
        return not isinstance(_row(file.readline()), str)


@dataclass(slots=True)
class _Tally:
    """Counts rows by which columns they have, and messages by which properties, since most are alike."""

    column: str
    role: str
    content: str
    mark: str
    rows: Counter[tuple[str, ...]] = field(default_factory=Counter)
    messages: Counter[tuple[str, ...]] = field(default_factory=Counter)
    empty: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    parts: bool = False
    marked: int = 0
    characters: int = 0
    longest: int = 0
    most_messages: int = 0
    without_content: Counter[str] = field(default_factory=Counter)
    first_without_content: str = ""
    empty_content: Counter[str] = field(default_factory=Counter)
    digests: set[int] = field(default_factory=set)

    def add(self, row: Mapping[str, Any], digest: int, place: str) -> None:
        self.rows[_present(row)] += 1
        self.digests.add(digest)
        if "" in row.values():
            self.empty.update(name for name, value in row.items() if value == "")
        before, messages = self.characters, listed_messages(row.get(self.column))
        for message in messages:
            if isinstance(message, dict):
                self.messages[_present(message)] += 1
                if (role := message.get(self.role)) is not None:
                    self.roles[str(role)] += 1
                content = message.get(self.content)
                self.characters += len(content) if isinstance(content, str) else 0
                self.parts = self.parts or isinstance(content, list)
                self.marked += bool(message.get(self.mark))
                if not content:
                    self._add_blank(message, place)
        self.longest = max(self.longest, self.characters - before)
        self.most_messages = max(self.most_messages, len(messages))

    def _add_blank(self, message: Mapping[str, Any], place: str) -> None:
        content = message.get(self.content)
        if content is None:
            content = message.get("content")  # without the named property, the template reads its own
        if any(isinstance(one, list | dict) or (name in THOUGHTS and one) for name, one in message.items()):
            return
        role = str(message.get(self.role))
        if content is None:
            self.without_content[role] += 1
            self.first_without_content = self.first_without_content or place
        elif content == "":
            self.empty_content[role] += 1

    def result(self, size: int) -> LocalRows:
        return LocalRows(
            count=self.rows.total(),
            bytes=size,
            columns=_counted(self.rows),
            empty=self.empty,
            roles=self.roles,
            properties=_counted(self.messages),
            messages=self.messages.total(),
            parts=self.parts,
            marked=self.marked,
            characters=self.characters,
            longest=self.longest,
            most_messages=self.most_messages,
            without_content=self.without_content,
            first_without_content=self.first_without_content,
            empty_content=self.empty_content,
            digests=frozenset(self.digests),
        )


def _present(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The names whose values are not null."""
    if None in record.values():
        return tuple(name for name, value in record.items() if value is not None)
    return tuple(record)


def _counted(shapes: Mapping[tuple[str, ...], int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for names, number in shapes.items():
        for name in names:
            counts[name] += number
    return counts


def _row(line: bytes) -> Mapping[str, Any] | str:
    """The row, or what is wrong with it."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})."
    return _as_row(row)


def _as_row(row: Any) -> Mapping[str, Any] | str:
    return row if isinstance(row, dict) else f"expected a JSON object, found a {type(row).__name__}."
