"""Patches of a process that validates configs with Axolotl's schema."""

from __future__ import annotations

import socket
from typing import Any, NoReturn

from modal_app.patches.patch import module_with


def build_the_schema_once() -> None:
    """One schema for each list of plugins. The one without plugins is built now."""
    config = module_with("axolotl.utils.config", "merge_input_args")
    manager = module_with("axolotl.integrations.base", "PluginManager").PluginManager
    build = config.merge_input_args
    built: dict[tuple[str, ...], Any] = {}

    def merge_input_args() -> Any:
        plugins = tuple(manager.get_instance().get_input_args())
        if plugins not in built:
            built[plugins] = build()
        return built[plugins]

    config.merge_input_args = merge_input_args
    merge_input_args()


def refuse_connections() -> None:
    """Every connection attempt in this process raises OSError."""

    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError("a config is validated without the network")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.getaddrinfo = refuse
