"""Which packages are installed, from as little of their metadata as possible."""

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
    """The same as importlib.metadata's, which checks for each file of each package whether it exists.

    This reads only the first part of each path, so a package counts even if all of its files have been removed.
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
    """The name and version of each package, without those that have no name or no readable metadata."""
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(UnicodeDecodeError):
            text = _metadata(distribution)
            if name := _field("Name", text):
                yield name, _field("Version", text)


def _inferred(distribution: Distribution) -> Iterable[str]:
    """The packages and modules that a distribution without top_level.txt has put next to its metadata."""
    record = distribution.read_text("RECORD")
    # An egg has no RECORD, but other lists of its files.
    lines = [str(path) for path in distribution.files or ()] if record is None else record.splitlines()
    tops = {line.split("/", 1)[0] if "/" in line else _module(line) for line in lines}
    return {top for top in tops if top and "." not in top}


def _module(line: str) -> str:
    path = line.split(",", 1)[0]
    return inspect.getmodulename(path) or path


def _metadata(distribution: Distribution) -> str:
    return distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""


def _field(name: str, metadata: str) -> str:
    """The field's value, empty if it is missing. Does not parse the description, which is mostly in the same file."""
    found = _FIELD[name].search(metadata)
    return found[1] if found else ""
