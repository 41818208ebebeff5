"""Patches around Axolotl's imports: each is a context manager. None changes a result."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from modal_app.patches.packages import packages_distributions
from modal_app.patches.patch import TargetGone, module_with, require

CANDIDATES = "transformers.generation.candidate_generator"
LOSSES = "transformers.loss"
IMPORTED_LATE = "evaluate"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
MALLOC_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""If the user sets one of these, it stays in effect."""


@contextlib.contextmanager
def collect_no_garbage() -> Iterator[None]:
    """The garbage collector never scans again what has been imported inside the block."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextlib.contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Set the thresholds that glibc's malloc sets itself once a process has freed something large (mallopt(3))."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries do not have it
    if mallopt is not None and not any(name in os.environ for name in MALLOC_SETTINGS):
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)
    yield


@contextlib.contextmanager
def read_package_metadata_once() -> Iterator[None]:
    importlib.metadata.packages_distributions = functools.cache(packages_distributions)
    yield


@contextlib.contextmanager
def leave_out_scikit_learn() -> Iterator[None]:
    """Code that imports scikit-learn itself, such as a task of the evaluation harness, still gets it."""
    require(_imported_without("is_sklearn_available", CANDIDATES), CANDIDATES, "is_sklearn_available")
    yield


@contextlib.contextmanager
def leave_out_scipy() -> Iterator[None]:
    """The losses that use a function of SciPy get a function that imports SciPy when it is called."""
    _imported_without("is_scipy_available", f"{LOSSES}.loss_utils")
    losses = [module for name, module in list(sys.modules.items()) if name.startswith(f"{LOSSES}.")]
    users: list[Any] = [module for module in losses if hasattr(module, "is_scipy_available")]
    if not users:
        raise TargetGone(f"no module of {LOSSES} checks whether SciPy is available")
    for module in users:
        module.linear_sum_assignment = _linear_sum_assignment
    yield


@contextlib.contextmanager
def import_evaluate_late() -> Iterator[None]:
    """An import inside the block gets a stand-in that imports `evaluate` when it is used."""
    if IMPORTED_LATE in sys.modules:
        yield
        return
    if importlib.util.find_spec(IMPORTED_LATE) is None:
        raise TargetGone(f"there is no module {IMPORTED_LATE}")
    with lazily_imported(IMPORTED_LATE):
        yield


class LazyModule(ModuleType):
    """A stand-in for a module, which is imported when one of its attributes is used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # from code that inspects all modules
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)


@contextlib.contextmanager
def lazily_imported(name: str) -> Iterator[None]:
    """Inside the block, an import of this module returns a LazyModule. The module must exist."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    sys.modules[name] = lazy = LazyModule(name)
    lazy.__spec__, lazy.__path__ = spec, list(spec.submodule_search_locations or ())
    try:
        yield
    finally:
        if sys.modules.get(name) is lazy:
            del sys.modules[name]


def _linear_sum_assignment(*arguments: Any, **named: Any) -> Any:
    return importlib.import_module("scipy.optimize").linear_sum_assignment(*arguments, **named)


def _imported_without(check: str, module: str) -> Any:
    """A module of transformers, imported while one of its checks says that a library is not installed."""
    utils = module_with("transformers.utils", check)
    is_available = getattr(utils, check)
    setattr(utils, check, lambda: False)
    try:
        return module_with(module)
    finally:
        setattr(utils, check, is_available)
