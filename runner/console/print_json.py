"""What `--json` prints: one object with a version. NaN is written as null, so that any parser reads it.

The object is a dataclass, from which scripts/json_schemas.py writes its JSON Schema.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION = 1
"""The version of an object without its own. It is raised when a field is removed or changes its meaning."""


def print_json(value: DataclassInstance) -> None:
    """To stdout, its `version` first."""
    json.dump(_finite({"version": VERSION, **asdict(value)}), sys.stdout, indent=1, allow_nan=False)
    sys.stdout.write("\n")


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
