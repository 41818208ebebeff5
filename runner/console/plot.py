"""Two curves in one plot of plain characters, which differ without colour. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

Curve = Mapping[int, float | None]
MARKS = ("•", "○")
BOTH = "◉"
WIDTH, HEIGHT = 64, 14


def overlay(curves: Sequence[Curve], *, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """At most two curves by step, the values at the left edge, the steps below; no lines when there is nothing to draw.

    Values that are NaN or infinite are left out.
    """
    finite = [
        {step: value for step, value in one.items() if value is not None and math.isfinite(value)} for one in curves
    ]
    steps = [step for one in finite for step in one]
    values = [value for one in finite for value in one.values()]
    if not steps:
        return []
    low, high, first, last = min(values), max(values), min(steps), max(steps)
    grid = [[" "] * width for _ in range(height)]
    for mark, points in zip(MARKS, finite, strict=False):
        cells = {
            (_cell(step, first, last, width), height - 1 - _cell(value, low, high, height))
            for step, value in _filled(points, first, last, width)
        }
        for column, line in cells:
            grid[line][column] = mark if grid[line][column] == " " else BOTH
    return [*_with_values(grid, low, high), *_steps(first, last, width, _margin(low, high))]


def _filled(points: Mapping[int, float], first: int, last: int, width: int) -> list[tuple[float, float]]:
    """The points, and interpolated points in the columns between neighbours."""
    known = list(points.items())
    found: list[tuple[float, float]] = [(float(step), value) for step, value in known]
    for (step, value), (next_step, next_value) in itertools.pairwise(known):
        parts = max(1, _cell(next_step, first, last, width) - _cell(step, first, last, width))
        for part in range(1, parts):
            share = part / parts
            found.append((step + share * (next_step - step), value + share * (next_value - value)))
    return found


def _cell(value: float, low: float, high: float, cells: int) -> int:
    return round((value - low) / (high - low) * (cells - 1)) if high > low else 0


def _with_values(grid: Sequence[Sequence[str]], low: float, high: float) -> list[str]:
    """Each third line has its value."""
    margin, last = _margin(low, high), len(grid) - 1
    lines = []
    for number, line in enumerate(grid):
        value = f"{high - (high - low) * number / last:.4g}" if number % 3 == 0 or number == last else ""
        lines.append(f"{value:>{margin}} ┤{''.join(line)}".rstrip())
    return lines


def _margin(low: float, high: float) -> int:
    return max(len(f"{value:.4g}") for value in (low, high)) + 2


def _steps(first: int, last: int, width: int, margin: int) -> list[str]:
    ends = f"{first}{f'step {last}':>{width - len(str(first))}}"
    return [f"{' ' * margin} └{'─' * width}", f"{' ' * margin}  {ends}"]
