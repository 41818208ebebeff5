"""The texts that the code can print, with `...` for the values in them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILLED_IN = "..."


@cache
def message_texts() -> frozenset[str]:
    """Every string of runner/ and modal_app/, on one line."""
    files = (file for folder in ("runner", "modal_app") for file in (ROOT / folder).rglob("*.py"))
    return frozenset(
        " ".join(text.split()) for file in files for text in _texts(ast.parse(file.read_text(encoding="utf-8")))
    )


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else FILLED_IN for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
