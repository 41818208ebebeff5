"""config.yml of a run, its Axolotl config as it was keyed, and run.json, everything that its key covers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from modal_app.store.read_json import name_unreadable, read_as


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


def read_identity(path: Path) -> dict[str, Any]:
    """The object in a run.json; empty where there is no such file, or one that cannot be read, which is named once."""
    return read_as(path, identity_of) or {}


def identity_of(raw: dict[str, Any]) -> dict[str, Any]:
    """The object in a run.json. Raises KeyError or TypeError if a part of another type would end its reader."""
    for name in ("axolotl", "gpu", "data"):
        if not isinstance(raw.get(name, {}), dict):
            raise TypeError(f"its {name} is not an object")
    if not all(isinstance(one, dict) for one in raw.get("inputs") or ()):
        raise TypeError("an entry of its inputs is not an object")
    if start := raw.get("from"):
        _ = start["run"], start["step"]
    return raw
