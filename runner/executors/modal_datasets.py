"""Whether the prepared datasets on the cache Volume still have the files that their manifests list: by their sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import modal

from modal_app.store.layout import MANIFEST
from runner.executors.modal_copies import listed, read_text


def damaged_datasets(cache: modal.Volume, keys: Iterable[str]) -> dict[str, str]:
    """Data key -> what is wrong, of those prepared datasets that are damaged."""
    found = {key: _damage(cache, key) for key in keys}
    return {key: damage for key, damage in found.items() if damage}


def _damage(cache: modal.Volume, key: str) -> str:
    folder = f"prepared/{key}"
    sizes = {entry.path.removeprefix(f"{folder}/"): entry.size for entry in listed(cache, folder, recursive=True)}
    if MANIFEST not in sizes:
        return ""  # it is not prepared
    manifest = _object(read_text(cache, f"{folder}/{MANIFEST}"))
    if not manifest:
        return f"its {MANIFEST} is empty or damaged"
    for name, one in manifest.get("files", {}).items():
        if sizes.get(name) != one["bytes"]:
            has = f"has {sizes[name]:,} bytes, not {one['bytes']:,}" if name in sizes else "is missing"
            return f"{name} {has}"
    return ""


def _object(text: str) -> dict[str, Any]:
    try:
        loaded = json.loads(text)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
