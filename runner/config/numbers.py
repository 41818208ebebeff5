"""Numbers in a config: those that Axolotl reads, and those of axosweep's own keys."""

from __future__ import annotations

from typing import Any, TypeGuard


def number(value: Any) -> float | None:
    """A value as Axolotl reads a number: text in figures is a number, too. None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_count(value: object) -> TypeGuard[int]:
    """Whether it is a number of things, at least one."""
    return is_integer(value) and value >= 1
