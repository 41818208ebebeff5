"""Searches that choose points of the recorded grid by earlier results: coordinate and tpe, by their own functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.search_curves import RANKS, RATES
from benchmarks.search_replay import Grid, Order
from runner.search.coordinate import next_turn
from runner.search.space import Axis, Point
from runner.search.tpe import DrawnPoint, Study

AXES = (
    Axis(("learning_rate",), tuple((str(rate),) for rate in RATES)),
    Axis(("lora",), tuple((f"r{rank}",) for rank in RANKS), ranks={(f"r{rank}",): float(rank) for rank in RANKS}),
)
MOST_REPEATS = 20
"""So often a point is drawn that was drawn before, before points are drawn at random."""


@dataclass(slots=True)
class DrawnPoints:
    """The points that a search has run, in rounds."""

    grid: Grid
    rounds: list[list[int]] = field(default_factory=list)
    losses: dict[Point, float] = field(default_factory=dict)

    def run(self, points: list[Point]) -> None:
        places = [self._place(point) for point in points]
        self.rounds.append(places)
        self.losses |= {point: float(self.grid.final[one]) for point, one in zip(points, places, strict=True)}

    @property
    def runs(self) -> list[int]:
        return [one for several in self.rounds for one in several]

    def _place(self, point: Point) -> int:
        (rate,), (rank,) = point
        wanted = (float(rate), int(rank.removeprefix("r")))
        curves = self.grid.curves
        known = [(float(curves.rate[one]), int(curves.rank[one])) for one in self.grid.members]
        return known.index(wanted)


def by_coordinate(grid: Grid) -> DrawnPoints:
    drawn = DrawnPoints(grid)
    while (turn := next_turn(AXES, drawn.losses)) is not None:
        drawn.run(list(turn.points))
    return drawn


def by_tpe(grid: Grid, order: Order, number: int, runs: int) -> DrawnPoints:
    """A search with so many runs; a round has at most a quarter of them, as in a sweep."""
    drawn, size = DrawnPoints(grid), max(1, min(order.parallel, math.ceil(runs / 4)))
    study = Study(Path("/nonexistent"), AXES, number, runs, write=False)
    while (left := runs - len(drawn.losses)) > 0:
        drawn_now = _new_points(study, set(drawn.losses), min(size, left))
        drawn.run([one.point for one in drawn_now])
        for one in drawn_now:
            study.tell(one, drawn.losses[one.point])
    return drawn


def _new_points(study: Study, known: set[Point], size: int) -> list[DrawnPoint]:
    found: dict[Point, DrawnPoint] = {}
    repeats = 0
    while len(found) < size:
        one = study.ask(at_random=repeats >= MOST_REPEATS)
        if one.point in known or one.point in found:
            study.forget(one)
            repeats += 1
        else:
            found[one.point], repeats = one, 0
    return list(found.values())
