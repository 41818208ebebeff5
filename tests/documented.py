"""The commands that the documents show, as their readers see them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(["README.md", *(str(file.relative_to(ROOT)) for file in (ROOT / "docs").rglob("*.md"))])
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OMITTED = "..."
"""What a page leaves out of a command."""


def command_lines(text: str) -> list[str]:
    """The commands in the fenced blocks of a page, each on one line, with their comments."""
    shown = "".join(block for language, block in FENCED.findall(text) if not language).replace("\\\n", " ")
    return [line.removeprefix(".venv/bin/") for line in shown.splitlines()
            if line.removeprefix(".venv/bin/").startswith("axosweep ")]  # fmt: skip


def words_of(line: str) -> tuple[str, ...]:
    """The words of a command without `axosweep`, the comment, and the brackets around optional words."""
    return tuple(re.sub(r"^\[(\w+)\]$", r"\1", word) for word in shlex.split(line, comments=True)[1:])
