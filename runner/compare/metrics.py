"""metrics.jsonl -> curves: the last value written for each step and name counts (a resumed run repeats some)."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NOT_METRICS = frozenset({"step", "attempt", "time"})
NOT_FINITE = "not_finite"
"""In a line: the names whose value was NaN or infinite, which JSON cannot express."""

PROGRESS = frozenset({"epoch", "seconds", "tokens"})
"""The progress of a run: curves of these serve as axes; runs are not compared by them."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What a run logged: name -> step -> value, steps ascending."""

    by_name: Mapping[str, Mapping[int, float]]
    logged_at: float | None = None
    """Unix seconds of the last line; None if unknown."""

    @property
    def step(self) -> int | None:
        """The last step that logged anything."""
        return max((max(points) for points in self.by_name.values() if points), default=None)

    @property
    def metrics(self) -> list[str]:
        """The names that runs can be compared by."""
        return [name for name in self.by_name if name not in PROGRESS]

    def first(self, name: str) -> float | None:
        points = self.by_name.get(name)
        return next(iter(points.values())) if points else None

    def final(self, name: str) -> float | None:
        points = self.by_name.get(name)
        return points[max(points)] if points else None

    def best(self, name: str, *, maximize: bool = False) -> float | None:
        """The smallest value, or the largest; NaN and infinity never win."""
        finite = filter(math.isfinite, self.by_name.get(name, {}).values())
        return max(finite, default=None) if maximize else min(finite, default=None)

    def most(self, name: str) -> float | None:
        """The largest value; None where there is none above zero."""
        highest = self.best(name, maximize=True)
        return highest if highest and highest > 0 else None


def read_curves(path: Path) -> Curves:
    """The curves in a metrics.jsonl; empty when there is none yet. An incomplete last line is left out."""
    collected: dict[str, dict[int, float]] = {}
    latest, in_order, logged_at = -1, True, None
    for row in logged_rows(path):
        try:
            step = int(row["step"])
        except (ValueError, KeyError, TypeError, OverflowError):
            continue
        in_order, latest = in_order and step >= latest, step
        logged_at = row.get("time", logged_at)
        for name, value in row.items():
            if type(value) in (float, int) and name not in NOT_METRICS:  # a bool is an int to isinstance
                collected.setdefault(name, {})[step] = float(value)
        for name in row.get(NOT_FINITE, ()):
            collected.setdefault(name, {})[step] = math.nan
    if in_order:  # always, except in a run that was resumed from an earlier step
        return Curves(collected, logged_at)
    return Curves({name: dict(sorted(points.items())) for name, points in collected.items()}, logged_at)


def logged_rows(path: Path) -> list[dict[str, Any]]:
    """Every complete line of a metrics.jsonl, in order; empty when there is none yet."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    return [row for row in _rows(lines) if isinstance(row, dict)]


def _rows(lines: list[bytes]) -> Iterable[Any]:
    """Every complete line, parsed. All are parsed at once, unless a kill has left an incomplete one."""
    filled = [line for line in lines if line]
    try:
        return list(json.loads(b"[" + b",".join(filled) + b"]"))
    except (ValueError, RecursionError):
        return [row for line in filled for row in _parsed(line)]


def _parsed(line: bytes) -> list[Any]:
    try:
        return [json.loads(line)]
    except (ValueError, RecursionError):
        return []
