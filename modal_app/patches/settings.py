"""Patches of settings that a library reads from the environment once, at its import. A fork, or a step whose
environment changes, must update the setting itself."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from modal_app.patches.patch import module_with

HUB, ROWS = "huggingface_hub.constants", "datasets.config"


def hub_offline_as(variables: Mapping[str, str]) -> None:
    if HUB in sys.modules:
        module_with(HUB, "HF_HUB_OFFLINE").HF_HUB_OFFLINE = _hub_is_offline(variables)


def datasets_offline_as(variables: Mapping[str, str]) -> None:
    if ROWS in sys.modules:
        config, own = module_with(ROWS, "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), variables.get("HF_DATASETS_OFFLINE")
        offline = _hub_is_offline(variables) if own is None else _is_true(own)
        config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = offline


def datasets_cache_in(folder: Path) -> None:
    module_with(ROWS, "HF_DATASETS_CACHE").HF_DATASETS_CACHE = folder


@contextlib.contextmanager
def hub_cache_in(folder: Path) -> Iterator[None]:
    constants = module_with(HUB, "HF_HUB_CACHE")
    before = constants.HF_HUB_CACHE
    constants.HF_HUB_CACHE = str(folder)
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before


def _hub_is_offline(variables: Mapping[str, str]) -> bool:
    return _is_true(variables.get("HF_HUB_OFFLINE") or variables.get("TRANSFORMERS_OFFLINE") or "")


def _is_true(text: str) -> bool:
    return text.upper() in ("1", "ON", "YES", "TRUE")
