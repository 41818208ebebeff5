"""The fewest tokens that the rows of a local file can have: no usual tokenizer joins two words to one token."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runner.preflight.jsonl import Conversation, conversation_of, rows_in
from runner.preflight.row_formats import listed_messages

ALWAYS_RENDERED = frozenset(("user", "human", "assistant", "gpt", "model", "True", "False"))
"""Roles (and labels of segments) whose content every chat template writes."""
END_OF_THOUGHT = "</think>"
"""Templates leave out what precedes it in earlier turns."""


def words_in_rows(dataset: Mapping[str, Any]) -> Mapping[int, int]:
    """Words -> rows that have so many. Of a dataset whose rows rows_of has read."""
    path = Path(str(dataset.get("path", ""))).expanduser()
    stat = path.stat()
    return _counted(path, (stat.st_size, stat.st_mtime_ns), conversation_of(dataset))


@functools.lru_cache(maxsize=64)  # the runs of a sweep share their files
def _counted(path: Path, stat: tuple[int, int], conversation: Conversation) -> Counter[int]:
    column, role, content, _ = conversation
    counts: Counter[int] = Counter()
    for _, row, _ in rows_in(path):
        messages = listed_messages(row.get(column)) if not isinstance(row, str) else []
        counts[sum(_words(one, role, content) for one in messages if isinstance(one, dict))] += 1
    return counts


def _words(message: Mapping[str, Any], role: str, content: str) -> int:
    text = message.get(content)
    if not isinstance(text, str) or str(message.get(role)) not in ALWAYS_RENDERED:
        return 0
    return len(text.rpartition(END_OF_THOUGHT)[2].split())
