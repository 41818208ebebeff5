"""Files of conversations, one on each line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def write_chats(path: Path, turns: Sequence[tuple[str, str]], times: int) -> None:
    """`turns`: role and text. Each row contains its number, so that no two are equal."""
    rows = [[{"role": role, "content": f"{text} {number}"} for role, text in turns] for number in range(times)]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows), encoding="utf-8")
