"""What spares the imports of a trainer, fresh or preloaded, what no run needs: two fifths of their seconds.

Two libraries each have the metadata of all 260 packages read, which takes a second; others import what is never called;
and a fifth of the time goes by in search of garbage, of which there is next to none. Nothing here changes what is
computed.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution
from types import ModuleType
from typing import Any

SCIKIT_LEARN_IS_FOR = "transformers.generation.candidate_generator"
SCIPY_IS_FOR = "transformers.loss"
USED_LATE = "evaluate"
"""Axolotl imports it for the metrics of a few, and it imports SciPy's statistics."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
MALLOC_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""The user's own, which stay as they are."""
_FIELD = {field: re.compile(rf"^{field}:\s*(.+?)\s*$", re.MULTILINE) for field in ("Name", "Version")}


@contextlib.contextmanager
def lean_imports() -> Iterator[None]:
    """Around Axolotl's imports. What has been imported within is never looked at by the garbage collector again.

    6000 modules leave 3 MB of garbage. Axolotl collects garbage about seven times a run; each would walk through all of
    their heap, and in a forked child copy it by that.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        if "transformers" not in sys.modules:
            _keep_freed_memory()
            # Its annotation wants the standard library's own; transformers and trl each call it at their import.
            importlib.metadata.packages_distributions = functools.cache(packages_distributions)
            _leave_out_scikit_learn()
            _leave_out_scipy()
        with _stood_in_for(USED_LATE):
            yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


class Later(ModuleType):
    """Stands for a module that is imported when something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by who looks through all modules
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


def packages_distributions() -> Mapping[str, list[str]]:
    """As importlib.metadata's, which asks of each file of each package whether it is there.

    Only the first part of each path is read here: a package counts though all of its files may have been taken away.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for distribution in importlib.metadata.distributions():
        declared = (distribution.read_text("top_level.txt") or "").split()
        packages = declared or _inferred(distribution)
        if packages and (name := _field("Name", _metadata(distribution))):
            for package in packages:
                found[package].append(name)
    return dict(found)


@functools.cache
def installed() -> tuple[tuple[str, str], ...]:
    """Name and version of each package that is there; a process asks once, and its forks know."""
    found = []
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(UnicodeDecodeError):
            text = _metadata(distribution)
            if name := _field("Name", text):
                found.append((name, _field("Version", text)))
    return tuple(found)


def _keep_freed_memory() -> None:
    """Set what glibc's malloc comes to by itself once a process has freed something large (mallopt(3)): blocks of up to
    32 MiB come from memory that was freed before. Until then each tensor of more than 128 KiB gets pages of its own
    from the kernel, which clears them one by one, and gives them back: three times the page faults of a tiny run.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # another C library's malloc has its own ways
    if mallopt is not None and not any(name in os.environ for name in MALLOC_SETTINGS):
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)


def _leave_out_scikit_learn() -> None:
    """transformers' speculative decoding takes one function of it, and it takes SciPy with it; a run generates nothing
    with an assistant. Who imports scikit-learn for itself, such as a task of the evaluation harness, gets it.
    """
    _import_without("is_sklearn_available", SCIKIT_LEARN_IS_FOR)


def _leave_out_scipy() -> None:
    """transformers imports the losses of all models; those that detect objects take one function of it, now when it is
    called.
    """
    _import_without("is_scipy_available", f"{SCIPY_IS_FOR}.loss_utils")
    for name, module in list(sys.modules.items()):
        if name.startswith(f"{SCIPY_IS_FOR}.") and hasattr(module, "is_scipy_available"):
            module.linear_sum_assignment = _linear_sum_assignment  # type: ignore[attr-defined]


def _linear_sum_assignment(*arguments: Any, **named: Any) -> Any:
    return importlib.import_module("scipy.optimize").linear_sum_assignment(*arguments, **named)


def _import_without(check: str, module: str) -> None:
    """Import a module of transformers' while a check of its own says that a library is not there. Another transformers
    may have neither.
    """
    utils = importlib.import_module("transformers.utils")
    is_available = getattr(utils, check, None)
    if is_available is None:
        return
    setattr(utils, check, lambda: False)
    try:
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)
    finally:
        setattr(utils, check, is_available)


@contextlib.contextmanager
def _stood_in_for(name: str) -> Iterator[None]:
    """Who imports the module within gets one that imports it when it is used; who imports it later gets itself."""
    if name in sys.modules or (spec := importlib.util.find_spec(name)) is None:
        yield
        return
    sys.modules[name] = stand_in = Later(name)
    stand_in.__spec__, stand_in.__path__ = spec, list(spec.submodule_search_locations or ())
    try:
        yield
    finally:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]


def _inferred(distribution: Distribution) -> Iterable[str]:
    """The packages and modules that a distribution without top_level.txt has put beside its metadata."""
    record = distribution.read_text("RECORD")
    # An egg has none: its own way is taken.
    lines = [str(path) for path in distribution.files or ()] if record is None else record.splitlines()
    tops = {line.split("/", 1)[0] if "/" in line else _module(line) for line in lines}
    return {top for top in tops if top and "." not in top}


def _module(line: str) -> str:
    path = line.split(",", 1)[0]
    return inspect.getmodulename(path) or path


def _metadata(distribution: Distribution) -> str:
    return distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""


def _field(name: str, metadata: str) -> str:
    """Without parsing the description, which most have in the same file; empty if it is not there."""
    found = _FIELD[name].search(metadata)
    return found[1] if found else ""
