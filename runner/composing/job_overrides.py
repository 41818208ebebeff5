"""A job's overrides of values: which of them can be set in a plain config, after everything else."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Override, OverrideType

from runner.composing.hydra_inside import with_number
from runner.composing.interpolations import InterpolationReads, Path, is_path, reads_of, related
from runner.composing.plain_values import Sign

_SIGNS = {OverrideType.CHANGE: Sign.CHANGE, OverrideType.ADD: Sign.ADD, OverrideType.FORCE_ADD: Sign.FORCE}


@dataclass(frozen=True, slots=True)
class JobOverride:
    """An override, parsed once for all jobs that have it."""

    override: Override
    path: Path
    sign: Sign | None
    """How a plain value is set; None for everything else, which Hydra does."""
    value: Any
    reads: InterpolationReads
    """What the interpolations in its value read."""
    scope: Path
    """What it may change: removing an entry of a list moves the others."""


def parsed(override: Override) -> JobOverride:
    path, value = tuple(override.key_or_group.split(".")), override.value()
    plain = is_path(override.key_or_group) and override.package is None and _is_plain(value)
    sign = _SIGNS.get(override.type) if plain and override.type is not None else None
    moves = override.is_delete() and path[-1].isdecimal()
    return JobOverride(override, path, sign, value, reads_of(value, path), path[:-1] if moves else path)


_NUMBER = re.compile(r"-?(0|[1-9]\d*)(?P<fraction>\.\d+)?(?P<exponent>e[+-]?\d+)?")


def another_number(known: JobOverride, text: str) -> JobOverride | None:
    """An override of the same key that sets another number, as Hydra's grammar reads it, which takes fifty times as
    long. None if `text` is anything else.
    """
    match = _NUMBER.fullmatch(text.partition("=")[2])
    if match is None or known.sign is None or isinstance(known.value, bool) or not isinstance(known.value, int | float):
        return None
    value = float(match[0]) if match["fraction"] or match["exponent"] else int(match[0])
    override = with_number(known.override, value, text)
    return JobOverride(override, known.path, known.sign, value, known.reads, known.scope)


def _is_plain(value: Any) -> bool:
    """Whether omegaconf keeps a value as it is."""
    if isinstance(value, str):
        return "$" not in value and value != "???"
    return value is None or isinstance(value, bool | int | float)


def independent(reads: InterpolationReads, values: Sequence[JobOverride]) -> list[bool]:
    """Which overrides are plain values that no interpolation reads, and that are neither below nor above the key of
    another override: their order does not matter.
    """
    if reads.unknown or any(one.reads.unknown for one in values):
        return [False for _ in values]
    touched = [*reads.paths, *(path for one in values for path in one.reads.paths)]
    found = []
    for index, one in enumerate(values):
        others = [other.scope for number, other in enumerate(values) if number != index]
        meets = any(related(one.path, path) for path in (*touched, *others))
        # Below an interpolation, the value is set in what that refers to.
        below = any(len(place) < len(one.path) and related(one.path, place) for place in reads.places)
        found.append(one.sign is not None and not meets and not below)
    return found


def in_order(raw: Mapping[str, Any], values: Sequence[JobOverride], independent: Sequence[bool]) -> tuple[bool, ...]:
    """`independent`, but False for those that would change the order of keys: a new key goes to the end of its mapping.
    If Hydra's function adds a key to a mapping, it also has to add the new keys before it.
    """
    ordered, later = list(independent), set[Path]()
    removed = [one.path for one in values if one.override.is_delete()]
    for index in reversed(range(len(values))):
        path = values[index].path
        grows = _grows(raw, path)
        if grows in later:
            ordered[index] = False
        if not ordered[index]:
            later |= {one[:-1] for one in removed if related(one, path)}  # a removed key is new again
            later |= set() if grows is None else {grows}
    return tuple(ordered)


def _grows(raw: Any, path: Path) -> Path | None:
    """The mapping that setting a value gives a new key; None where the value is there already."""
    for depth, name in enumerate(path):
        if isinstance(raw, list) and name.isdecimal() and int(name) < len(raw):
            raw = raw[int(name)]
        elif isinstance(raw, dict) and name in raw:
            raw = raw[name]
        else:
            return path[:depth]
    return None
