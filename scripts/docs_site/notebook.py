"""The notebook as a page of the site."""

from __future__ import annotations

import json
from pathlib import Path

NOTEBOOK = "docs/python-api.ipynb"


def pages(root: Path) -> dict[str, str]:
    cells = json.loads((root / NOTEBOOK).read_text(encoding="utf-8"))["cells"]
    return {"notebook.md": "\n\n".join(_cell(cell["cell_type"], "".join(cell["source"])) for cell in cells) + "\n"}


def _cell(kind: str, text: str) -> str:
    return text if kind == "markdown" else f"```python\n{text}\n```"
