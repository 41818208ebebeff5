"""Small JSON files, as they are read everywhere. Standard library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path, *, lenient: bool = False) -> dict[str, Any]:
    """A JSON object; empty where there is no file, or where it holds something else.

    Raises ValueError for what is no JSON; `lenient` takes that for empty, too: what can be found out again, or what a
    kill may have cut.
    """
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        if lenient:
            return {}
        raise
    return loaded if isinstance(loaded, dict) else {}
