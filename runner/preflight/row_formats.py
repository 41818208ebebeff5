"""Names what fits rows of another format than the chosen one: an option of conf/dataset, or a key of the dataset."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

TOKENIZED = frozenset(("input_ids", "attention_mask", "labels"))
"""Columns of rows that Axolotl takes as they are, whatever their `type` is."""
TEXTS = (("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("input", "output"))
"""Pairs of columns that often hold a question and its answer; no type of Axolotl has them as its own."""


def option_for_row(row: Mapping[str, Any]) -> str:
    """What to write for rows like this one; empty if its format is not known."""
    return _option_for_conversation(row) or option_for_columns(row)


def option_for_columns(columns: Collection[str]) -> str:
    """The same for columns with texts."""
    if {"instruction", "output"} <= set(columns):
        return "dataset=local_alpaca (type: alpaca)"
    for question, answer in TEXTS:
        if {question, answer} <= set(columns):
            fields = f"{{field_instruction: {question}, field_output: {answer}}}"
            return f"dataset=local_alpaca 'datasets.0.type={fields}'"
    if "text" in columns:
        return "dataset=local_text (type: completion, field: text)"
    return ""


def _option_for_conversation(row: Mapping[str, Any]) -> str:
    for name, value in row.items():
        first = value[0] if isinstance(value, list) and value else None
        if not isinstance(first, Mapping):
            continue
        if {"from", "value"} <= set(first):
            other = "" if name == "conversations" else f" datasets.0.field_messages={name}"
            return f"dataset=local_sharegpt{other}"
        if {"role", "content"} <= set(first):
            other = "" if name == "messages" else f" datasets.0.field_messages={name}"
            return f"dataset=local{other}"
    return ""


def listed_messages(messages: Any) -> list[Any]:
    """The messages of a conversation, which Axolotl also reads from a JSON text."""
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError):
            return []
    return messages if isinstance(messages, list) else []
