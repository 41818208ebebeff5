"""How the next round of a search is found: for `search=coordinate` and `search=tpe`, from the results so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runner.errors import SweepError
from runner.request import LeftOut
from runner.search import coordinate
from runner.search.coordinate import Turn
from runner.search.points import Points, Setting
from runner.search.space import Axis, Point, size

if TYPE_CHECKING:
    from runner.search.tpe import DrawnPoint

Losses = Mapping[Point, float | None]
"""Of points, the smaller, the better: infinite for one that has diverged, None for one that failed."""
SHARE_OF_ROUND = 4
"""A round of tpe has at most one point in so many: within a round, no point learns from another one."""
MOST_REPEATS = 20
"""So often a point is drawn again that was drawn before. Then points are drawn at random."""
MOST_REFUSED = 200
"""Draws in a row without a point that may be run, after which there is taken to be none."""
NOT_INSTALLED = (
    "search=tpe needs Optuna, which is not installed here: install axosweep's wheel with [search] after its file name "
    "(dist/axosweep-VERSION-py3-none-any.whl[search]); in a checkout, `make env` installs Optuna."
)


@dataclass(frozen=True, slots=True)
class Round:
    """Points that are run side by side."""

    title: str
    settings: tuple[Setting, ...]
    further: int
    """How many points may follow at most."""
    beyond: tuple[str, ...] = ()
    """Those of them that no axis has, as overrides."""


class Method(Protocol):
    def next_round(self) -> Round | None:
        """None if the search is over. Returns the same round until `tell` was called with its results."""
        ...

    def tell(self, losses: Losses) -> None: ...

    def leave_out(self, setting: Setting) -> None:
        """Leave out a point of a round."""
        ...

    @property
    def losses(self) -> Losses:
        """All results so far, except those of points that may not be run."""
        ...

    @property
    def left_out(self) -> Sequence[LeftOut]:
        """The points that may not be run, in the order in which they were found."""
        ...


class Coordinate:
    """Its points follow from the results alone, so it needs no memory of its own."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._losses: dict[Point, float] = {}
        self._results: dict[Point, float | None] = {}
        self.left_out: list[LeftOut] = []

    def next_round(self) -> Round | None:
        while (turn := coordinate.next_turn(self._points.axes, self._losses)) is not None:
            settings = self._points.screened(turn.points)
            for one in settings:
                if one.refusal:
                    self.leave_out(one)
            if allowed := tuple(one for one in settings if not one.refusal):
                axes = self._points.axes
                further = max(0, coordinate.most_points(axes) - len(self._losses) - len(allowed))
                is_next = coordinate.role(turn.axis) is coordinate.Role.RATE and not turn.extends
                return Round(self._title(turn), allowed, further, coordinate.beyond(axes) if is_next else ())
        return None

    def tell(self, losses: Losses) -> None:
        self._results |= losses
        self._losses |= {point: math.inf if loss is None else loss for point, loss in losses.items()}

    def leave_out(self, setting: Setting) -> None:
        self.left_out.append(_left_out(self._points.axes, setting))
        self._losses[setting.point] = math.inf

    @property
    def losses(self) -> Losses:
        return self._results

    def _title(self, turn: Turn) -> str:
        others = [place for place, axis in enumerate(self._points.axes) if axis != turn.axis]
        where = " ".join(_shown(self._points.axes[place], turn.points[0][place]) for place in others)
        if coordinate.role(turn.axis) is coordinate.Role.BATCH:
            where = " ".join(_shown(self._points.axes[place], turn.points[0][place]) for place in others
                             if not _is_rate(self._points.axes[place]))  # fmt: skip
        what = f"{turn.axis.name}{', one step beyond the end' if turn.extends else ''}"
        return f"{what}{f' at {where}' if where else ''}"


class Tpe:
    """Its points and their results are in a file in the sweep's folder."""

    def __init__(self, points: Points, file: Path, runs: int, at_a_time: int, *, write: bool) -> None:
        """`runs`: how many there are in all; `at_a_time`: how many of them. Without `write`, the file stays as it is.

        Raises SweepError without Optuna.
        """
        try:
            from runner.search.tpe import Study  # imported late: it is an extra
        except ImportError:
            raise SweepError(NOT_INSTALLED) from None
        self._points = points
        self._most = max(1, runs // points.seeds)
        self._size = max(1, min(at_a_time // points.seeds, -(-self._most // SHARE_OF_ROUND)))
        self._study = Study(file, points.axes, points.request.search.seed, self._most, write=write)
        self.left_out: list[LeftOut] = []

    def next_round(self) -> Round | None:
        """Points whose results are missing after a kill come first."""
        found = [setting for one in self._study.open() if (setting := self._allowed(one)) is not None]
        while not found and self._left() > 0 and (more := self._drawn()):
            found = more
        if not found:
            return None
        begun = len(self._study.results())
        title = f"{len(found)} of {self._most} points, {begun} before"
        return Round(title, tuple(found), max(0, self._left() - len(found)))

    def tell(self, losses: Losses) -> None:
        for one in self._study.open():
            if one.point in losses:
                self._study.tell(one, losses[one.point])

    def leave_out(self, setting: Setting) -> None:
        for one in self._study.open():
            if one.point == setting.point:
                self._forbid(one, setting)

    @property
    def losses(self) -> Losses:
        return self._study.results()

    def _left(self) -> int:
        """How many points may still be drawn."""
        left = self._most - len(self._study.results())
        points = size(self._points.axes)
        known = len(self._study.results()) + len(self._study.forbidden())
        return left if points is None else min(left, points - known)

    def _drawn(self) -> list[Setting]:
        """New points that may be run, as many as are run at a time."""
        found: dict[Point, Setting] = {}
        known = {*self._study.results(), *self._study.forbidden()}
        repeats = refused = 0  # in a row
        while len(found) < min(self._size, self._left()) and refused + repeats < MOST_REFUSED:
            drawn = self._study.ask(at_random=repeats >= MOST_REPEATS)
            if drawn.point in known:
                self._study.forget(drawn)
                repeats += 1
                continue
            known.add(drawn.point)
            repeats = 0
            setting = self._points.screened([drawn.point])[0]
            if setting.refusal:
                self._forbid(drawn, setting)
                refused += 1
            else:
                found[drawn.point], refused = setting, 0
        return list(found.values())

    def _allowed(self, drawn: DrawnPoint) -> Setting | None:
        setting = self._points.screened([drawn.point])[0]
        if not setting.refusal:
            return setting
        self._forbid(drawn, setting)
        return None

    def _forbid(self, drawn: DrawnPoint, setting: Setting) -> None:
        self._study.forbid(drawn)
        self.left_out.append(_left_out(self._points.axes, setting))


def named(axes: tuple[Axis, ...], point: Point) -> str:
    """A point as overrides: `learning_rate=3e-4 lora_r=16`."""
    return " ".join(_words(axes, point))


def _left_out(axes: tuple[Axis, ...], setting: Setting) -> LeftOut:
    return LeftOut(_words(axes, setting.point), setting.refusal.splitlines()[0])


def _words(axes: tuple[Axis, ...], point: Point) -> tuple[str, ...]:
    return tuple(_shown(axis, value) for axis, value in zip(axes, point, strict=True))


def _shown(axis: Axis, value: tuple[str, ...]) -> str:
    return " ".join(f"{key}={text}" for key, text in zip(axis.keys, value, strict=True))


def _is_rate(axis: Axis) -> bool:
    return coordinate.role(axis) is coordinate.Role.RATE
