"""Which packages are installed, from their metadata, without reading what is not asked for."""

from __future__ import annotations

import contextlib
import importlib.metadata
import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution

_FIELD = {field: re.compile(rf"^{field}:\s*(.+?)\s*$", re.MULTILINE) for field in ("Name", "Version")}


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


def names_and_versions() -> Iterator[tuple[str, str]]:
    """Of each package; one without a name, or without anything that can be read, is in no list."""
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(UnicodeDecodeError):
            text = _metadata(distribution)
            if name := _field("Name", text):
                yield name, _field("Version", text)


def _inferred(distribution: Distribution) -> Iterable[str]:
    """The packages and modules that a distribution without top_level.txt has put next to its metadata."""
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
