"""The losses of a run against steps, tokens, seconds and dollars, thinned to what a page can draw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modal_app.cloud.meter import ContainerRecord
from runner.compare.metrics import Curves, logged_rows

MOST_POINTS = 30_000
"""Of all curves of a page together; each curve has at least `FEWEST`, if it has as many."""
FEWEST = 60
MOST = 600


def points_each(runs: int) -> int:
    """The most points of a curve, for that number of runs."""
    return max(FEWEST, min(MOST, MOST_POINTS // max(1, runs)))


def series(
    curves: Curves,
    clock: Mapping[int, tuple[float, float]],
    name: str,
    most: int,
    rented: Sequence[ContainerRecord],
    dollars: float | None,
) -> dict[str, list[Any]] | None:
    """One curve as columns: `step`, `y` (None is NaN), and `tokens`, `seconds` and `dollars` where they are known. None
    when nothing was logged.

    `clock`: the moments of the run. `seconds` of training are summed over all attempts. The column `dollars` is what
    was paid until each step, of the run's `dollars`.
    """
    values = curves.by_name.get(name)
    if not values:
        return None
    steps = thinned(list(values), [step for step, value in values.items() if not math.isfinite(value)], most)
    found: dict[str, list[Any]] = {"step": steps, "y": [rounded(values[step]) for step in steps]}
    found["tokens"] = _until(curves.by_name.get("tokens", {}), steps)
    found["seconds"] = [clock[step][0] if step in clock else None for step in steps]
    if dollars is not None and rented:
        shares = [paid_until(rented, clock[step][1]) if step in clock else None for step in steps]
        found["dollars"] = [None if share is None else rounded(share * dollars) for share in shares]
    return {axis: column for axis, column in found.items() if any(value is not None for value in column)}


def thinned(steps: Sequence[int], keep: Sequence[int], most: int) -> list[int]:
    """At most `most` of the steps, evenly spread, with the first and the last; in addition, the first of `keep`.

    >>> thinned(range(10), [], 4)
    [0, 3, 6, 9]
    """
    if len(steps) <= most:
        return list(steps)
    last = len(steps) - 1
    chosen = {steps[round(at * last / (most - 1))] for at in range(most)}
    return sorted(chosen | set(keep[:1]))


def moments(path: Path) -> dict[int, tuple[float, float]]:
    """Step -> seconds of training until its last line, and the time when that was written (Unix seconds).

    The seconds in a line count from the start of its attempt, so those of earlier attempts are added.
    """
    last: dict[int, tuple[int, float, float]] = {}
    longest: dict[int, float] = {}
    for row in logged_rows(path):
        try:
            step, attempt, seconds, at = (
                int(row["step"]),
                int(row["attempt"]),
                float(row["seconds"]),
                float(row["time"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        last[step] = (attempt, seconds, at)
        longest[attempt] = max(longest.get(attempt, 0.0), seconds)
    before = {attempt: sum(longest[one] for one in longest if one < attempt) for attempt in longest}
    return {step: (round(before[attempt] + seconds, 3), at) for step, (attempt, seconds, at) in sorted(last.items())}


def paid_until(rented: Sequence[ContainerRecord], at: float) -> float:
    """The share of a run's paid seconds that had passed at a time (Unix seconds)."""
    total = sum(one.seconds for one in rented)
    passed = sum(min(one.seconds, max(0.0, at - (one.seen_at - one.seconds))) for one in rented)
    return passed / total if total else 0.0


def rounded(value: float | None) -> float | None:
    """Twelve digits; None for NaN and infinity. The page rounds once more, to the digits that it shows, so with only a
    few more than these, 1.03815362 would become 1.03815 and then 1.0381."""
    return float(f"{value:.12g}") if value is not None and math.isfinite(value) else None


def _until(known: Mapping[int, float], steps: Sequence[int]) -> list[float | None]:
    """The newest known value at each step, since the line of an evaluation does not have one; 0 before training."""
    found: list[float | None] = []
    pairs = list(known.items())
    value, at = 0.0 if pairs and steps[0] == 0 else None, 0
    for step in steps:
        while at < len(pairs) and pairs[at][0] <= step:
            value = rounded(pairs[at][1])
            at += 1
        found.append(value)
    return found
