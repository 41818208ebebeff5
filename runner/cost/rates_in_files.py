"""The prices in conf/prices, for a command that composes nothing: a user's own file first, then the shipped one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import yaml

from runner.config.project import current_project


def rates_in_files() -> Mapping[str, float]:
    """US dollars a second of one card, by its name in conf/gpu; nothing if no file can be read."""
    return _rates_in(tuple(folder / "prices/modal.yaml" for folder in current_project().conf))


@functools.cache
def _rates_in(paths: tuple[Path, ...]) -> Mapping[str, float]:
    for path in paths:
        try:
            gpu = yaml.safe_load(path.read_text(encoding="utf-8"))["gpu"]
            return {str(name): float(dollars) for name, dollars in gpu.items()}
        except (OSError, UnicodeDecodeError, yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError):
            continue
    return {}
