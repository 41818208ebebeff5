"""Rows that cannot be what the type of their dataset reads -> one message about all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runner.preflight.row_formats import TOKENIZED, listed_messages, option_for_row

SHOWN = 5
"""Places that the message names after the first."""
ENOUGH = 100
"""With so many, and none that can be read, the dataset has another format."""
MEND = "Fix or remove the row"


@dataclass(slots=True)
class WrongRows:
    """Those of one file. Its type reads a list of messages in the column `messages`, and a value in each of `columns`;
    only columns that are certain to be needed."""

    messages: str | None
    columns: tuple[str, ...]
    first: Mapping[str, Any] | str = ""
    """A row, or what is wrong with one that is not a JSON object."""
    places: list[str] = field(default_factory=list)

    def add(self, row: Mapping[str, Any] | str, place: str) -> None:
        if not self.places:
            self.first = row
        self.places.append(place)

    def is_wrong(self, row: Mapping[str, Any]) -> bool:
        if row.keys() >= TOKENIZED:
            return False
        without_messages = self.messages is not None and not listed_messages(row.get(self.messages))
        return without_messages or any(row.get(column) is None for column in self.columns)

    def message(self, *, some_are_right: bool) -> str:
        """If some rows of the file are right, it says which ones are not; otherwise, which option reads such rows."""
        more = self.places[1:] if some_are_right else []
        others = f" {len(more)} more cannot be read: {', '.join(more[:SHOWN])}" if more else ""
        others += "" if not more else ", ..." if len(more) > SHOWN else "."
        return f"{self.places[0]}: {self._first_problem(some_are_right)}{others}"

    def _first_problem(self, some_are_right: bool) -> str:
        row = self.first
        if isinstance(row, str):
            return row
        if self.messages is None:
            option = "" if set(self.columns) <= set(row) or some_are_right else option_for_row(row)
            other = f"for such rows write {option}" if option else "set another type with datasets.0.type=NAME"
            reads = " and ".join(self.columns)
            return f"its type reads {reads}, and this row has {_has(row)}. {MEND}, or {other}."
        reads = f"type chat_template reads a list of messages under `{self.messages}`"
        if self.messages in row:
            return f"{reads}, and in this row it is {_seen(row[self.messages])}. {MEND}."
        if some_are_right:
            way_out = f"{MEND}."
        elif option := option_for_row(row):
            way_out = f"For such rows write {option}."
        else:
            way_out = "Set another name with datasets.0.field_messages=NAME."
        return f"{reads}, and this row has {_has(row)}. {way_out}"


def _seen(value: Any) -> str:
    return "null" if value is None else "an empty list" if value == [] else f"a {type(value).__name__}"


def _has(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} (null)" if value is None else name for name, value in row.items()) or "nothing"
