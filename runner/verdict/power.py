"""What it would take to show that one of two settings is better: how many held-out rows, or how many seeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from runner.verdict.intervals import Intervals
from runner.verdict.judged import SettingLosses

POWER = 0.8
MOST_SEEDS = 1000


@dataclass(frozen=True, slots=True)
class NeededData:
    """What it takes for the interval of two settings to exclude zero with the probability POWER, if this is their true
    difference. Each number is for the case that nothing else changes. It is a total, not an addition to what there is;
    null where no number is enough: more rows do not quiet the seeds, and more seeds do not quiet the rows."""

    difference: float
    """The true difference that this is computed for, in nats per token."""
    documents: int | None
    rows: int | None
    """In as many documents, with as many rows in each as now."""
    seeds: int | None
    """Of each of the two settings. Null, too, if it is unknown how much seeds differ, and above MOST_SEEDS."""


@dataclass(frozen=True, slots=True)
class _Noise:
    """The variance of a difference of two settings."""

    of_rows: float
    """Without what seeds add to single rows."""
    of_seed: float
    """Of one seed on rows as many as these."""
    of_seed_by_rows: float
    """The part of it that is less with more rows."""
    per_seed: float
    """1/a + 1/b, for the seeds of the two."""
    degrees: int
    """Of freedom, of the spread of seeds."""

    def total(self, per_seed: float) -> float:
        return self.of_rows + self.of_seed * per_seed

    def degrees_of_all(self, per_seed: float, degrees: int) -> float:
        """By Satterthwaite. The noise of rows is taken as known."""
        of_seeds = self.of_seed * per_seed
        return degrees * (self.total(per_seed) / of_seeds) ** 2 if of_seeds else math.inf


def needed(of: SettingLosses, found: Intervals, one: int, other: int, *, difference: float | None = None,
           power: float = POWER) -> NeededData:  # fmt: skip
    """`difference`: in truth, in nats per token; None takes the one that was found, which is a guess: the true one may
    be smaller. With V the variance of a difference, it takes |d| = (width of the interval / sqrt(V) + z) sqrt(V), z the
    normal quantile of the power."""
    assumed = abs(float(found.difference[one, other] if difference is None else difference))
    noise = _noise(of, found, one, other)
    now = noise.total(noise.per_seed)
    if now <= 0 or assumed == 0:
        return NeededData(assumed, None, None, None)
    width = float(found.high[one, other] - found.low[one, other]) / 2 / math.sqrt(now)
    more = NormalDist().inv_cdf(power)
    fixed = (noise.of_seed - noise.of_seed_by_rows) * noise.per_seed
    allowed = (assumed / (width + more)) ** 2 - fixed
    documents = max(math.ceil(of.documents * (now - fixed) / allowed), 1) if allowed > 0 else None
    rows = None if documents is None else math.ceil(documents * len(of.tokens) / of.documents)
    normal = _normal_quantile(width, noise.degrees_of_all(noise.per_seed, noise.degrees))
    others = noise.degrees - int(of.seeds[one] + of.seeds[other]) + 2

    def enough(seeds: int) -> bool:
        degrees = noise.degrees_of_all(2 / seeds, others + 2 * (seeds - 1))
        return assumed >= (_students_quantile(normal, degrees) + more) * math.sqrt(noise.total(2 / seeds))

    first = 2 if others == 0 else 1
    seeds = next(filter(enough, range(first, MOST_SEEDS + 1)), None) if found.seeds else None
    return NeededData(assumed, documents, rows, seeds)


def _noise(of: SettingLosses, found: Intervals, one: int, other: int) -> _Noise:
    per_seed = float(1 / of.seeds[one] + 1 / of.seeds[other])
    squares = float(found.se[one, other]) ** 2
    if found.seeds is None:
        return _Noise(squares, 0.0, 0.0, per_seed, 0)
    of_seed = found.seeds.sd**2
    by_rows = min(found.seeds.by_rows**2, of_seed)
    return _Noise(max(squares - by_rows * per_seed, 0.0), of_seed, by_rows, per_seed, found.seeds.degrees)


def _students_quantile(normal: float, degrees: float) -> float:
    """The quantile of Student's distribution where the normal one has this (Cornish and Fisher's first terms)."""
    return (
        normal
        + (normal**3 + normal) / (4 * degrees)
        + (5 * normal**5 + 16 * normal**3 + 3 * normal) / (96 * degrees**2)
    )


def _normal_quantile(students: float, degrees: float) -> float:
    """The reverse."""
    low, high = 0.0, students
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if _students_quantile(middle, degrees) < students else (low, middle)
    return low
