"""The axes of a search and its points: what each axis may be, in the user's words. Pure."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Value = tuple[str, ...]
"""Of an axis: a text for each of its keys."""
Point = tuple[Value, ...]
"""A value for each axis, in the order of the axes."""


@dataclass(frozen=True, slots=True)
class Interval:
    low: float
    high: float
    log: bool = False
    integer: bool = False

    def text(self, number: float) -> str:
        """A number of the interval as it is written in an override."""
        inside = min(max(number, self.low), self.high)
        if self.integer:
            return str(round(inside))
        short = written(inside)
        return short if self.low <= float(short) <= self.high else repr(inside)


@dataclass(frozen=True, slots=True)
class Axis:
    keys: tuple[str, ...]
    """Several of them move together."""
    options: tuple[Value, ...] = ()
    """Empty for an interval."""
    interval: Interval | None = None
    ranks: Mapping[Value, float] = field(default_factory=dict)
    """The rank that each option sets; empty if they set none, or all of them the same."""

    @property
    def name(self) -> str:
        return ",".join(self.keys)

    @property
    def order(self) -> Mapping[Value, float]:
        """What the options are ordered by; empty if they have no order."""
        return self.ranks or self.numbers()

    def numbers(self) -> dict[Value, float]:
        """The options as numbers, if the axis has one key and each of them is one."""
        if len(self.keys) > 1:
            return {}
        found = {one: number(one[0]) for one in self.options}
        return {one: value for one, value in found.items() if value is not None} if None not in found.values() else {}


def ordered(axis: Axis) -> tuple[Value, ...]:
    """The options of an axis, ascending if they can; otherwise as they are written."""
    return tuple(sorted(axis.options, key=axis.order.__getitem__)) if axis.order else axis.options


def size(axes: Sequence[Axis]) -> int | None:
    """How many points there are; None if an axis is an interval."""
    if any(axis.interval is not None for axis in axes):
        return None
    return math.prod(len(set(axis.options)) for axis in axes)


def with_value(point: Point, axis: int, value: Value) -> Point:
    return (*point[:axis], value, *point[axis + 1 :])


def number(text: str) -> float | None:
    """None for a text that is not a finite number.

    >>> number("1e-4"), number("r8")
    (0.0001, None)
    """
    with contextlib.suppress(ValueError):
        if math.isfinite(value := float(text)):
            return value
    return None


def written(value: float) -> str:
    """A number as a person writes it, with four digits.

    >>> written(0.000316227766), written(0.1 + 0.2), written(2e-5), written(12)
    ('0.0003162', '0.3', '2e-05', '12')
    """
    return f"{value:.4g}"


def spaced(low: float, high: float, count: int, *, log: bool) -> list[float]:
    """So many numbers with equal distances, or equal ratios, with both ends.

    >>> [round(one, 6) for one in spaced(1e-4, 1e-2, 3, log=True)]
    [0.0001, 0.001, 0.01]
    """
    steps = [one / (count - 1) for one in range(count)]
    if log:
        return [low * (high / low) ** step for step in steps]
    return [low + (high - low) * step for step in steps]


def middle(values: Sequence[Value]) -> Value:
    """The value in the middle; of an even number of values, the first of the two.

    >>> middle([("8",), ("16",), ("32",), ("64",)])
    ('16',)
    """
    return values[(len(values) - 1) // 2]
