"""Patches of the launcher."""

from __future__ import annotations

from modal_app.patches.patch import module_with


def read_config_files_by_libyaml() -> None:
    yaml = module_with("yaml", "CSafeLoader")
    yaml.SafeLoader = yaml.CSafeLoader
