"""What spares a trainer's process what no run needs, be it fresh or preloaded: a fifth of the imports' seconds.

Two libraries each have the metadata of all 260 packages read, which takes a second; others import what is never called.
Nothing here changes what is computed.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution

SCIKIT_LEARN_IS_FOR = "transformers.generation.candidate_generator"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""
MALLOC_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
"""The user's own, which stay as they are."""
_NAME = re.compile(r"^Name:\s*(.+?)\s*$", re.MULTILINE)


def become_lean() -> None:
    """Before Axolotl is imported; does nothing where transformers has been imported already."""
    if "transformers" in sys.modules:
        return
    _keep_freed_memory()
    # Its annotation wants the standard library's own; transformers and trl each call it at their import.
    importlib.metadata.packages_distributions = functools.cache(packages_distributions)
    _leave_out_scikit_learn()


def packages_distributions() -> Mapping[str, list[str]]:
    """As importlib.metadata's, which asks of each file of each package whether it is there.

    Only the first part of each path is read here: a package counts though all of its files may have been taken away.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    for distribution in importlib.metadata.distributions():
        declared = (distribution.read_text("top_level.txt") or "").split()
        packages = declared or _inferred(distribution)
        if packages and (name := _name(distribution)):
            for package in packages:
                found[package].append(name)
    return dict(found)


def leave_out_deepspeed() -> None:
    """For a run without DeepSpeed: accelerate would import all of it whenever it unwraps a model, to see whether that
    is one of DeepSpeed's.
    """
    from accelerate.utils import other

    other.is_deepspeed_available = lambda: False


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
    utils = importlib.import_module("transformers.utils")
    is_available = utils.is_sklearn_available
    utils.is_sklearn_available = lambda: False  # type: ignore[attr-defined]
    try:
        importlib.import_module(SCIKIT_LEARN_IS_FOR)
    finally:
        utils.is_sklearn_available = is_available  # type: ignore[attr-defined]


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


def _name(distribution: Distribution) -> str:
    """Without parsing its description, which most have in the same file; empty if it has no name."""
    named = _NAME.search(distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or "")
    return named[1] if named else ""
