"""Imports a module that a config names, and says why that fails: what is missing, and where."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from typing import Any

NOT_LOADED = "not loaded"
"""The kind of a problem with code that cannot be imported here."""
UNRESOLVED = "unresolved"
"""The kind of a problem with a name that is nothing here. The schema has not refused it."""
MISSING = "missing"
"""The kind of a problem with a package that is not installed here; the problem has its name as `package`."""


def problem(keys: Sequence[str], message: str, kind: str = UNRESOLVED, package: str = "") -> dict[str, Any]:
    return {"keys": list(keys), "message": message, "kind": kind} | ({"package": package} if package else {})


def load(module: str, package: str = "") -> Exception | None:
    """Import a module, which runs its code. Returns its error."""
    try:
        importlib.import_module(module, package or None)
    except Exception as error:  # the code may raise anything
        return error
    return None


def attribute(at: str, dotted: str, found: list[Any] | None = None) -> Iterator[dict[str, Any]]:
    """The problem with MODULE.NAME, if there is one; otherwise it is added to `found`."""
    module, _, name = dotted.rpartition(".")
    if not module:
        yield problem([at], f"{dotted} is not the name of a function in a module: MODULE.FUNCTION")
        return
    if (error := load(module)) is not None:
        yield failure(at, dotted, error)
        return
    value = getattr(importlib.import_module(module), name, None)
    if value is None:
        yield problem([at], f"the module {module} has no {name}")
    elif found is not None:
        found.append(value)


def failure(at: str, name: str, error: Exception) -> dict[str, Any]:
    """The problem with a name whose import has failed."""
    module = name.rpartition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return problem([at], f"{name} cannot be loaded: {type(error).__name__}: {error}", NOT_LOADED)
    if name == error.name or name.startswith(f"{error.name}."):
        places = "neither in the current folder, next to the config, nor in the trainer's environment"
        return problem([at], f"there is no module {error.name}: {places}", NOT_LOADED)
    message = f"importing {module} needs {error.name}, which the trainer does not have"
    return problem([at], message, MISSING, error.name.partition(".")[0])
