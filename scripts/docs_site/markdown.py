"""Markdown of generated pages: texts of the code as they are, tables, blocks of code."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

FENCE = "`" * 10
"""Longer than what a quoted file may contain."""
CODE = re.compile(r"`[^`]*`")


def code_block(text: str, language: str = "text") -> str:
    return f"{FENCE}{language}\n{text.strip(chr(10))}\n{FENCE}\n"


def code(text: str) -> str:
    """A span of code, also in a table; empty for an empty text."""
    return f"`{text}`" if text and "|" not in text and "`" not in text else _html(text)


def plain(text: str) -> str:
    """A text of the code as one line, with its spans of code; nothing else in it is markup."""
    line, parts, end = " ".join(text.split()), [], 0
    for span in CODE.finditer(line):
        parts += [_escaped(line[end : span.start()]), code(span[0].strip("`"))]
        end = span.end()
    return "".join([*parts, _escaped(line[end:])])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table without the columns in which no row has anything."""
    rows = list(rows)
    used = [at for at in range(len(head)) if any(row[at] for row in rows)]
    lines = [[head[at] for at in used], ["---"] * len(used), *([row[at] for at in used] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _html(text: str) -> str:
    return f"<code>{_escaped(text)}</code>" if text else ""


def _escaped(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "&#124;")
    return re.sub(r"([*_\[\]\\])", r"\\\1", escaped)
