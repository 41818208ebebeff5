"""search=grid: every combination of a sweep's axes, without those that are left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from runner.composing.axes import Axis, Cell, ChoiceAxis, FixedOverride, IntervalAxis, Job, Points, SearchSpace
from runner.errors import SweepError
from runner.request import LeftOut


def grid(space: SearchSpace) -> Points:
    """All points; those of the last axis are next to each other. Raises SweepError for an interval, and for excludes
    that leave out nothing or everything.
    """
    for axis in space.axes:
        if isinstance(axis, IntervalAxis):
            raise SweepError(_infinite(axis))
    if not space.zips and not space.excludes:
        parts = [(one.override,) if isinstance(one, FixedOverride) else _overrides(one) for one in space.parts]
        return Points(tuple(itertools.product(*parts)))
    points = _with_excludes(space)
    if not points.jobs:
        raise SweepError(f"{exclude_words(*(one.text for one in space.excludes))}: no point is left.")
    return points


def _infinite(axis: IntervalAxis) -> str:
    return (
        f"{axis.name}: an interval has infinitely many values. Write a list or range(start,stop,step), or draw "
        "points from it: search=random search.runs=20. Another sweeper (hydra/sweeper=...) gets intervals as they "
        "are."
    )


def _overrides(axis: Axis) -> tuple[str, ...]:
    assert isinstance(axis, ChoiceAxis)
    return axis.overrides


def _with_excludes(space: SearchSpace) -> Points:
    jobs: list[Job] = []
    left_out: list[LeftOut] = []
    unused = dict.fromkeys(one.text for one in space.excludes if not one.optional)
    for rows in itertools.product(*map(_rows, space.dimensions)):
        cells = list(itertools.chain.from_iterable(rows))
        job = space.job_of({name: override for name, _, override in cells})
        matching = space.excluding({name: value for name, value, _ in cells})
        for one in matching:
            unused.pop(one.text, None)
        if matching:
            left_out.append(LeftOut(job, exclude_words(matching[0].text)))
        else:
            jobs.append(job)
    if unused:
        raise SweepError(f"{exclude_words(*unused)}: no point has these values together, so nothing would be left out.")
    return Points(tuple(jobs), tuple(left_out))


def _rows(dimension: tuple[Axis, ...]) -> Iterator[tuple[Cell, ...]]:
    choices = [one for one in dimension if isinstance(one, ChoiceAxis)]
    columns = [[(one.name, *row) for row in zip(one.values, one.overrides, strict=True)] for one in choices]
    return zip(*columns, strict=True)


def exclude_words(*excludes: str) -> str:
    """As on the command line."""
    return " ".join(f"--exclude '{one}'" for one in excludes)
