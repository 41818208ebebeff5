"""What omegaconf's interpolations read: which keys of the config, and whether anything else. Does not import Hydra.

Written for one question: may a value be set after everything has been resolved? So an interpolation that is not
understood here counts as reading everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Path = tuple[str, ...]

SAME_FOR_ALL = frozenset({"now", "oc.env", "python_version", "shipped", "for_gpu", "times", "times_sqrt"})
"""Resolvers that read nothing of the config but what their arguments name, and have the same value in every job of a
sweep that has the same arguments."""
READ_BY_NAME = frozenset({"oc.create", "oc.decode", "oc.deprecated", "oc.dict.keys", "oc.dict.values", "oc.select"})
"""Resolvers that read the config, and nothing else."""

_INNERMOST = re.compile(r"\$\{([^{}]*)\}")
_RESOLVER = re.compile(r"\s*([\w.]+)\s*:.*", re.S)
_NODE = re.compile(r"\s*(?P<up>\.*)(?P<key>[\w-]+(\.[\w-]+)*)\s*")
_KEY = re.compile(r"[\w-]+(\.[\w-]+)*")
_DONE = "\0"


@dataclass(frozen=True, slots=True)
class InterpolationReads:
    """What interpolations read."""

    paths: frozenset[Path] = frozenset()
    places: frozenset[Path] = frozenset()
    """Where they are, and where a value is missing."""
    unknown: bool = False
    """Whether they may read anything of the config."""
    impure: bool = False
    """Whether they may have another value in each job: `${hydra:job.num}`, and every resolver that is not known."""


def is_path(key: str) -> bool:
    """Whether a key is just names and dots.

    >>> is_path("axolotl.datasets.0.path"), is_path("datasets[0].path")
    (True, False)
    """
    return _KEY.fullmatch(key) is not None


def related(one: Path, other: Path) -> bool:
    """Whether one lies in the other, or they are the same."""
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def reads_of(value: Any, at: Path = ()) -> InterpolationReads:
    """What all interpolations in a plain, unresolved value at `at` read.

    >>> sorted(reads_of({"a": "${b.c}", "d": {"e": "${.f}${now:%Y}"}}).paths)
    [('b', 'c'), ('d', 'f')]
    """
    paths: set[Path] = set()
    places: set[Path] = set()
    unknown = impure = False
    for place, text in _texts(value, at):
        places.add(place)
        one = _of_text(text, place)
        paths |= one.paths
        unknown, impure = unknown or one.unknown, impure or one.impure
    return InterpolationReads(frozenset(paths), frozenset(places), unknown, impure)


def _texts(value: Any, at: Path) -> Iterator[tuple[Path, str]]:
    match value:
        case str() if "${" in value or value == "???":
            yield at, value
        case dict():
            for key, one in value.items():
                yield from _texts(one, (*at, str(key)))
        case list():
            for index, one in enumerate(value):
                yield from _texts(one, (*at, str(index)))


def _of_text(text: str, at: Path) -> InterpolationReads:
    paths: set[Path] = set()
    unknown = "\\" in text
    impure = False
    while (found := _INNERMOST.search(text)) is not None:
        inner = found[1]
        if (resolver := _RESOLVER.fullmatch(inner)) is not None:
            impure = impure or resolver[1] not in SAME_FOR_ALL | READ_BY_NAME
            unknown = unknown or resolver[1] in READ_BY_NAME
        elif (node := _NODE.fullmatch(inner)) is not None and len(node["up"]) <= len(at):
            above = at[: len(at) - len(node["up"])] if node["up"] else ()
            paths.add((*above, *node["key"].split(".")))
        else:
            unknown = True
        text = text[: found.start()] + _DONE + text[found.end() :]
    unreadable = "${" in text  # most often braces within quotes, which may contain any resolver
    return InterpolationReads(frozenset(paths), frozenset(), unknown, impure or unreadable)
