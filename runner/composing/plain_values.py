"""A value set in a plain config as Hydra's overrides set it, in a copy that shares the rest. No Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from typing import Any


class Sign(Enum):
    """How an override sets its value."""

    CHANGE = auto()
    """`key=value`: what is there already."""
    ADD = auto()
    """`+key=value`: what is not."""
    FORCE = auto()
    """`++key=value`: either."""


class NotPlain(Exception):
    """Something that only Hydra can do, or has a word to say about."""


def with_value(node: Mapping[str, Any], path: tuple[str, ...], value: Any, sign: Sign) -> dict[str, Any]:
    """`node` with a value that is no container. Raises NotPlain.

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
    """What stands in the place of `old`."""
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


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Two unresolved configs as omegaconf merges them. Raises NotPlain for what it has rules of its own for.

    >>> merged({"a": {"b": 1}, "c": [2]}, {"c": [3, 4], "a": {"d": 5}})
    {'a': {'b': 1, 'd': 5}, 'c': [3, 4]}
    """
    made = dict(under)
    for key, value in over.items():
        made[key] = _over(made[key], value) if key in made else value
    return made


def _over(old: Any, value: Any) -> Any:
    if value == "???" or (isinstance(old, dict | list) and _is_special(value)):
        raise NotPlain
    if isinstance(value, dict | list) and (_is_special(old) and old is not None):
        raise NotPlain
    if isinstance(old, dict) and isinstance(value, dict):
        return merged(old, value)
    if isinstance(old, dict | list) and isinstance(value, dict | list) and type(old) is not type(value):
        raise NotPlain
    return value


def _is_special(value: Any) -> bool:
    """What says nothing itself, and what stands for something else."""
    return value is None or (isinstance(value, str) and ("${" in value or value == "???"))


def parts_at(node: Any, paths: Sequence[tuple[str, ...]]) -> Any:
    """What stands at the paths, where it stands; a list whole, and more where a name is not that of one key.

    >>> parts_at({"a": {"b": 1, "c": 2}, "d": [3, 4], "e": 5}, [("a", "b"), ("d", "0"), ("f",)])
    {'a': {'b': 1}, 'd': [3, 4]}
    """
    if not isinstance(node, dict) or () in paths or not all(isinstance(key, str) for key in node):
        return node
    below: dict[str, list[tuple[str, ...]]] = {}
    for head, *rest in paths:
        below.setdefault(head, []).append(tuple(rest))
    return {key: parts_at(value, below[key]) for key, value in node.items() if key in below}


def with_parts(node: Any, parts: Any) -> Any:
    """`node` with what has become of its `parts_at` some paths."""
    if not isinstance(node, dict) or not isinstance(parts, dict):
        return parts
    return {key: with_parts(value, parts[key]) if key in parts else value for key, value in node.items()}
