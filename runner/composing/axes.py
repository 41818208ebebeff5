"""A sweep's axes as values: what may vary and between what, what moves together, and what is left out. Pure."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from typing import Any

from runner.config.overrides import written
from runner.request import LeftOut

Job = tuple[str, ...]
"""One point as overrides for Hydra, each of one value."""
Point = Mapping[str, Any]
"""The value of each axis, by the axis's name."""

Cell = tuple[str, Any, str]
"""Of a point: an axis's name, its value, and the override that sets it."""


@dataclass(frozen=True, slots=True)
class AxisRules:
    """How axes move together and which points are left out, as the user wrote it."""

    zips: tuple[str, ...] = ()
    """`lora_r,lora_alpha`"""
    excludes: tuple[str, ...] = ()
    """`lora=r128 learning_rate=8e-4`"""

    @property
    def words(self) -> str:
        """As flags, for messages."""
        return " ".join([*(f"--zip {one}" for one in self.zips), *(f"--exclude '{one}'" for one in self.excludes)])


NO_RULES = AxisRules()


STEPS = 1000
"""An interval's values are written with as many digits as at least so many equal steps between its ends take."""
LOG_DIGITS = 3
"""Significant digits of a value on a log scale."""
_NEARLY = Context(prec=20)
"""Without the last digits of a logarithm: 0.00099999... is 0.001."""


@dataclass(frozen=True, slots=True)
class FixedOverride:
    """An override with one value."""

    name: str
    override: str
    value: Any


@dataclass(frozen=True, slots=True)
class ChoiceAxis:
    """An axis with a list of values: a,b, choice(), range() or glob()."""

    name: str
    """As users write it: `learning_rate`, `lora`, `gpu.count`."""
    head: str
    """What is left of = in its overrides: `++axolotl.learning_rate`."""
    values: tuple[Any, ...]
    """In the requested order, plain. A group's options are text."""
    texts: tuple[str, ...]
    """Each value in Hydra's grammar."""

    def override(self, value: Any) -> str:
        """The override for one of its values, or for another value."""
        for known, text in zip(self.values, self.texts, strict=True):
            if is_same(known, value):
                return f"{self.head}={text}"
        return f"{self.head}={written(value)}"

    @property
    def overrides(self) -> tuple[str, ...]:
        """One for each of its values."""
        return tuple(f"{self.head}={text}" for text in self.texts)


@dataclass(frozen=True, slots=True)
class IntervalAxis:
    """interval(), which has infinitely many values, or int(interval()), whose ends are both among its values."""

    name: str
    head: str
    low: float
    high: float
    log: bool = False
    """Whether it was requested as tag(log, ...): each factor is as likely as any other of the same size."""
    integer: bool = False

    def at(self, part: Decimal) -> float | int:
        """Its value at this part (0 to 1) of the way from one end to the other. Equal on every machine."""
        low, high = _decimal(self.low), _decimal(self.high + 1 if self.integer else self.high)
        if self.log:
            return self._rounded(_NEARLY.exp(_ln(low) + part * (_ln(high) - _ln(low))))
        return self._rounded(_NEARLY.plus(low + part * (high - low)))

    def rounded(self, value: float) -> float | int:
        """A value between its ends with the digits that it is written with."""
        return self._rounded(Decimal(repr(value)))

    def override(self, value: float) -> str:
        return f"{self.head}={self.rounded(value)!r}"

    def _rounded(self, exact: Decimal) -> float | int:
        """Down, so that the upper end, which does not belong to interval(), is never reached."""
        if self.integer:
            return min(max(math.floor(exact), int(self.low)), int(self.high))
        down = float(exact.quantize(_power_of_ten(self._last_digit(exact)), ROUND_FLOOR))
        return min(max(down, self.low), math.nextafter(self.high, self.low))

    def _last_digit(self, exact: Decimal) -> int:
        if self.log and self.high >= 10 * self.low:
            return exact.adjusted() - LOG_DIGITS + 1
        return _digit_of_steps(self.low, self.high)


_few = functools.lru_cache(maxsize=100)
"""The ends of a sweep's intervals are few, and their points are many."""


@_few
def _decimal(value: float) -> Decimal:
    return Decimal(repr(value))


@_few
def _ln(value: Decimal) -> Decimal:
    return value.ln()


@_few
def _power_of_ten(digit: int) -> Decimal:
    return Decimal(1).scaleb(digit)


@_few
def _digit_of_steps(low: float, high: float) -> int:
    return ((_decimal(high) - _decimal(low)) / STEPS).adjusted()


Axis = ChoiceAxis | IntervalAxis


@dataclass(frozen=True, slots=True)
class Condition:
    """A part of an exclude: the name of an axis, and what its value has to be for a point to be left out."""

    name: str
    values: tuple[Any, ...] = ()
    """Any of these,"""
    between: tuple[float, float] | None = None
    """or at least the first and less than the second of these."""

    def holds(self, value: Any) -> bool:
        if self.between is not None:
            low, high = self.between
            return is_number(value) and low <= value < high
        return any(is_same(value, one) for one in self.values)


@dataclass(frozen=True, slots=True)
class Exclude:
    text: str
    """As the user wrote it. A point is left out if it meets all of these conditions."""
    conditions: tuple[Condition, ...]
    optional: bool = False
    """Whether it may leave out nothing: a file's, where the command line has replaced an axis that it names."""

    def matches(self, point: Point) -> bool:
        """`point` may have the values of fixed overrides, too."""
        return all(one.name in point and one.holds(point[one.name]) for one in self.conditions)


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """What was requested of a sweep, before its points are chosen."""

    parts: tuple[FixedOverride | ChoiceAxis | IntervalAxis, ...]
    """In the order in which a job has them."""
    zips: tuple[tuple[str, ...], ...] = ()
    """Names of axes that move together; they have equally many values."""
    excludes: tuple[Exclude, ...] = ()

    @property
    def axes(self) -> tuple[Axis, ...]:
        return tuple(one for one in self.parts if not isinstance(one, FixedOverride))

    @property
    def dimensions(self) -> tuple[tuple[Axis, ...], ...]:
        """The axes, those that move together in one tuple, at the place of the first of them."""
        axes = {one.name: one for one in self.axes}
        together = {name: zipped for zipped in self.zips for name in zipped}
        groups = dict.fromkeys(tuple(one for one in axes if one in together.get(name, (name,))) for name in axes)
        return tuple(tuple(axes[name] for name in group) for group in groups)

    def job(self, point: Point) -> Job:
        """A point's overrides, in order."""
        return self.job_of({one.name: one.override(point[one.name]) for one in self.axes})

    def job_of(self, overrides: Mapping[str, str]) -> Job:
        """The same, with the override of each axis by its name."""
        return tuple(one.override if isinstance(one, FixedOverride) else overrides[one.name] for one in self.parts)

    def excluding(self, point: Point) -> tuple[Exclude, ...]:
        """The excludes that leave a point out."""
        if not self.excludes:
            return ()
        values = {one.name: one.value for one in self.parts if isinstance(one, FixedOverride)} | dict(point)
        return tuple(one for one in self.excludes if one.matches(values))


@dataclass(frozen=True, slots=True)
class Points:
    """The points of a sweep that are run, and those that are not."""

    jobs: tuple[Job, ...]
    left_out: tuple[LeftOut, ...] = ()
    note: str = ""
    """Why they are fewer than requested; otherwise empty."""


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are equal to Axolotl: 8e-4 and 0.0008, but not 1 and true.

    >>> is_same(0.0008, 8e-4), is_same(1, 1.0), is_same(1, True), is_same("r8", "r8"), is_same([1], [1])
    (True, True, False, True, True)
    """
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def names(axes: Sequence[Axis]) -> str:
    """For messages."""
    return ", ".join(one.name for one in axes) or "none"
