"""Patches of the launcher. Each command of a process applies them again."""

from __future__ import annotations

import functools
from typing import Any

from modal_app.patches.patch import module_with


def read_config_files_by_libyaml() -> None:
    yaml = module_with("yaml", "CSafeLoader")
    yaml.SafeLoader = yaml.CSafeLoader


def parse_interpolations_once() -> None:
    """What is remembered is how one is written, not its value."""
    _remember(module_with("omegaconf.base", "parse"), "parse")


def parse_versions_once() -> None:
    _remember(module_with("hydra.version", "_get_version"), "_get_version")


def _remember(module: Any, name: str) -> None:
    function = getattr(module, name)
    if not hasattr(function, "cache_info"):
        setattr(module, name, functools.lru_cache(maxsize=1024)(function))
