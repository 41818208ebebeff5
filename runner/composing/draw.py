"""search=random: points that fill the space of the axes evenly, drawn from a scrambled Sobol sequence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal

from runner.composing.axes import Axis, Cell, ChoiceAxis, IntervalAxis, Job, Points, SearchSpace
from runner.composing.job_product import exclude_words
from runner.composing.sobol import MOST_DIMENSIONS, sobol
from runner.errors import SweepError
from runner.request import LeftOut, SearchChoice

DRAWS_EACH = 100
"""A search gives up after so many draws for each requested run,"""
DRAWS = 1000
"""and so many in addition."""


def draw(space: SearchSpace, search: SearchChoice) -> Points:
    """The first distinct points that no exclude leaves out. The points of a smaller `search.runs` come first, and the
    order of the axes makes no difference. Fewer, with a note, if there are no more. `left_out` has the points among
    them that an exclude matches.
    """
    assert search.runs is not None
    dimensions = sorted(space.dimensions, key=lambda one: min(axis.name for axis in one))
    if len(dimensions) > MOST_DIMENSIONS:
        raise SweepError(f"search=random draws from at most {MOST_DIMENSIONS} axes; there are {len(dimensions)}.")
    size = math.prod(map(_size, dimensions))
    most = DRAWS + DRAWS_EACH * search.runs
    jobs: list[Job] = []
    left_out: list[LeftOut] = []
    seen: set[Job] = set()
    for parts in itertools.islice(sobol(len(dimensions), search.seed), most):
        cells = list(itertools.chain.from_iterable(map(_cells, dimensions, parts)))
        job = space.job_of({name: override for name, _, override in cells})
        if job in seen:
            continue
        seen.add(job)
        if excludes := space.excluding({name: value for name, value, _ in cells}):
            left_out.append(LeftOut(job, exclude_words(excludes[0].text)))
        else:
            jobs.append(job)
        if len(jobs) == search.runs or len(seen) == size:
            break
    if not jobs:
        raise SweepError("search=random: --exclude leaves out every point.")
    return Points(tuple(jobs), tuple(left_out), _note(jobs, search.runs))


def _size(dimension: Sequence[Axis]) -> float:
    """How many distinct points it has."""
    match dimension[0]:
        case IntervalAxis(integer=True) as axis:
            return axis.high - axis.low + 1
        case IntervalAxis():
            return math.inf
    return len(set(zip(*(one.overrides for one in dimension if isinstance(one, ChoiceAxis)), strict=True)))


def _cells(dimension: Sequence[Axis], part: Decimal) -> Iterator[Cell]:
    for axis in dimension:
        if isinstance(axis, IntervalAxis):
            value = axis.at(part)
            yield axis.name, value, f"{axis.head}={value!r}"
        else:
            number = int(part * len(axis.values))
            yield axis.name, axis.values[number], f"{axis.head}={axis.texts[number]}"


def _note(jobs: Sequence[Job], runs: int) -> str:
    if len(jobs) == runs:
        return ""
    return f"search.runs={runs}, but the axes have only {len(jobs)} different points, and each is run once."
