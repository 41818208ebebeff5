"""`search=coordinate`: one axis after the other, each at the best values of those before it. Pure.

The learning rate comes first, at one middle rank: it matters most, and the best rate hardly depends on the rank. Then
the rank, at that rate; then the batch, with the rate scaled by the square root of the batch's ratio; then the other
axes, in the order in which they are written. What comes next is computed from the results alone, so a search that was
interrupted goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from runner.search.space import Axis, Point, Value, middle, number, ordered, spaced, with_value, written

RATE_KEY = "learning_rate"
RANK_KEY = "lora_r"
BATCH_KEYS = ("micro_batch_size", "gradient_accumulation_steps")
FACTOR = 3.0
"""Between two rates that are tried in an interval."""
FEWEST, MOST = 3, 5
"""Values that are tried in an interval."""


class Role(IntEnum):
    """The role of an axis, in the order of their turns."""

    RATE = 1
    RANK = 2
    BATCH = 3
    OTHER = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of a search."""

    axis: Axis
    points: tuple[Point, ...]
    """What is to be run."""
    extends: bool = False
    """Whether it goes past an end of the axis."""


def role(axis: Axis) -> Role:
    if RATE_KEY in axis.keys:
        return Role.RATE
    if axis.ranks or RANK_KEY in axis.keys:
        return Role.RANK
    return Role.BATCH if len(axis.keys) == 1 and axis.keys[0] in BATCH_KEYS else Role.OTHER


def candidates(axis: Axis) -> tuple[Value, ...]:
    """The values that are tried. Numbers ascend, and so do ranks."""
    if axis.interval is not None:
        return tuple(dict.fromkeys((axis.interval.text(one),) for one in _of_interval(axis)))
    return ordered(axis)


def start(axes: tuple[Axis, ...]) -> Point:
    """Where an axis is until its turn: at its middle if its values ascend, otherwise at the value that is written
    first."""
    return tuple(_start(axis) for axis in axes)


def next_turn(axes: tuple[Axis, ...], losses: Mapping[Point, float]) -> Turn | None:
    """What is run next; None if the search is over. `losses`: of the points so far, the smaller the better; infinite
    for one that failed, or was left out."""
    at = start(axes)
    for place in turns(axes):
        axis = axes[place]
        line = [_moved(axes, at, place, value) for value in candidates(axis)]
        if missing := _missing(line, losses):
            return Turn(axis, missing)
        if role(axis) is Role.RATE and (further := _further(axis, place, line, losses)) is not None:
            if further not in losses:
                return Turn(axis, (further,), extends=True)
            line.append(further)
        best = min(line, key=losses.__getitem__)
        at = best if math.isfinite(losses[best]) else at
    return None


def most_points(axes: tuple[Axis, ...]) -> int:
    """How many points there are at most."""
    sizes = [len(candidates(axis)) for axis in axes]
    extended = any(role(axis) is Role.RATE and axis.numbers() for axis in axes)
    return 1 + sum(size - 1 for size in sizes) + extended


def turns(axes: tuple[Axis, ...]) -> list[int]:
    """The places of the axes in the order of their turns."""
    return sorted(range(len(axes)), key=lambda place: role(axes[place]))


def _start(axis: Axis) -> Value:
    values = candidates(axis)
    return middle(values) if axis.interval is not None or axis.order else values[0]


def _of_interval(axis: Axis) -> list[float]:
    interval = axis.interval
    assert interval is not None
    log = interval.log or (role(axis) is Role.RATE and 0 < interval.low * FACTOR <= interval.high)
    if not log:
        return spaced(interval.low, interval.high, FEWEST, log=False)
    count = round(math.log(interval.high / interval.low, FACTOR)) + 1
    return spaced(interval.low, interval.high, min(max(count, FEWEST), MOST), log=True)


def _moved(axes: tuple[Axis, ...], at: Point, place: int, value: Value) -> Point:
    """A point with another value of one axis; of a batch axis, with the rate that belongs to it."""
    moved = with_value(at, place, value)
    if role(axes[place]) is not Role.BATCH or value == at[place]:
        return moved
    rates = [one for one, axis in enumerate(axes) if axis.keys == (RATE_KEY,)]
    before, after = number(at[place][0]), number(value[0])
    if not rates or not before or not after or (rate := number(at[rates[0]][0])) is None:
        return moved
    return with_value(moved, rates[0], (written(rate * math.sqrt(after / before)),))


def _missing(line: list[Point], losses: Mapping[Point, float]) -> tuple[Point, ...]:
    return tuple(dict.fromkeys(point for point in line if point not in losses))


def _further(axis: Axis, place: int, line: list[Point], losses: Mapping[Point, float]) -> Point | None:
    """One step beyond the end of a list of rates, if the best rate is there. The ends of an interval are its limits."""
    rates = axis.numbers()
    best = min(line, key=losses.__getitem__)
    if not math.isfinite(losses[best]) or best not in (line[0], line[-1]):
        return None
    inner = line[1 if best == line[0] else -2] if len(line) > 1 else best
    value = _beyond(rates, best[place], inner[place])
    return None if value is None else with_value(best, place, value)


def _beyond(rates: Mapping[Value, float], end: Value, inner: Value) -> Value | None:
    """The value one step beyond the end of a list, as far as the one before it; None if there is none."""
    if len(rates) < 2 or rates[end] <= 0 or rates[inner] <= 0 or rates[end] == rates[inner]:
        return None
    return (written(rates[end] * rates[end] / rates[inner]),)


def beyond(axes: tuple[Axis, ...]) -> tuple[str, ...]:
    """As overrides, the rates that a search may try beyond the ends of a list, once it knows that an end is best."""
    found: list[str] = []
    for axis in axes:
        values = candidates(axis)
        if role(axis) is Role.RATE and len(rates := axis.numbers()) > 1:
            ends = [_beyond(rates, values[0], values[1]), _beyond(rates, values[-1], values[-2])]
            found += [f"{axis.keys[0]}={one[0]}" for one in ends if one is not None]
    return tuple(found)
