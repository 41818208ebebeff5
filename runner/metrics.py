"""metrics.jsonl -> curves: the last value written for each step and name counts (a resumed run repeats some)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NOT_METRICS = frozenset({"step", "attempt", "time"})


@dataclass(frozen=True, slots=True)
class Curves:
    """What a run logged: name -> step -> value, steps ascending."""

    by_name: Mapping[str, Mapping[int, float]]

    @property
    def step(self) -> int | None:
        """The last step that logged anything."""
        return max((max(points) for points in self.by_name.values() if points), default=None)

    def first(self, name: str) -> float | None:
        points = self.by_name.get(name)
        return points[min(points)] if points else None

    def final(self, name: str) -> float | None:
        points = self.by_name.get(name)
        return points[max(points)] if points else None

    def best(self, name: str) -> float | None:
        """The smallest value; values that are not numbers (NaN) never win."""
        points = self.by_name.get(name, {})
        return min((value for value in points.values() if value == value), default=None)


def read_curves(path: Path) -> Curves:
    """The curves in a metrics.jsonl; empty when there is none yet. A torn last line is left out."""
    collected: dict[str, dict[int, float]] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    for line in lines:
        try:
            row = json.loads(line)
            step = int(row["step"])
        except (ValueError, KeyError, TypeError):
            continue
        for name, value in row.items():
            if name not in NOT_METRICS and isinstance(value, int | float) and not isinstance(value, bool):
                collected.setdefault(name, {})[step] = float(value)
    return Curves({name: dict(sorted(points.items())) for name, points in collected.items()})
