"""config.yml of a run: its Axolotl config as it was keyed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from modal_app.store.read_json import name_unreadable


def read_config(path: Path) -> dict[str, Any] | None:
    """None where there is no such file, or one that cannot be read, which is named once."""
    try:
        loaded = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        name_unreadable(path, str(error).splitlines()[0])
        return None
    if isinstance(loaded, dict):
        return loaded
    name_unreadable(path, "it is not a mapping of keys")
    return None
