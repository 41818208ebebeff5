"""Sets a value in a plain config as Hydra's overrides do, in a copy that shares the rest. Does not import Hydra."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Any


class Sign(Enum):
    """How an override sets its value."""

    CHANGE = auto()
    """`key=value`: the key exists."""
    ADD = auto()
    """`+key=value`: the key does not exist."""
    FORCE = auto()
    """`++key=value`: either."""


class NotPlain(Exception):
    """Something that only Hydra can do, or that it refuses."""


def with_value(node: Mapping[str, Any], path: tuple[str, ...], value: Any, sign: Sign) -> dict[str, Any]:
    """`node` with a value that is not a container. Raises NotPlain.

    >>> with_value({"a": {"b": 1}, "c": [2]}, ("a", "d"), 3, Sign.ADD)
    {'a': {'b': 1, 'd': 3}, 'c': [2]}
    """
    changed = dict(node)
    head, *rest = path
    if head in node:
        changed[head] = _changed(node[head], rest, value, sign)
    elif sign is Sign.CHANGE:
        raise NotPlain
    else:
        changed[head] = with_value({}, tuple(rest), value, sign) if rest else value
    return changed


def _changed(old: Any, rest: list[str], value: Any, sign: Sign) -> Any:
    """What replaces `old`."""
    if not rest:
        if isinstance(old, dict | list) or (sign is Sign.ADD and old is not None):
            raise NotPlain
        return value
    if isinstance(old, dict):
        return with_value(old, tuple(rest), value, sign)
    if old is None and sign is not Sign.CHANGE:
        return with_value({}, tuple(rest), value, sign)
    if isinstance(old, list) and rest[0].isdecimal() and int(rest[0]) < len(old):
        index = int(rest[0])
        return [*old[:index], _changed(old[index], rest[1:], value, sign), *old[index + 1 :]]
    raise NotPlain
