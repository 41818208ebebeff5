"""When settling a sweep ends, and which settings get further seeds before the next look. Pure.

Each look makes intervals for all pairs at once. With K looks, fixed beforehand, each is made at the level 1 - 5 %/K, so
that all of them together are wrong in at most 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from runner.verdict.intervals import Intervals
from runner.verdict.judged import Floats, SettingLosses
from runner.verdict.seed_noise import ENOUGH_DEGREES

ERROR = 0.05
"""The share of settled sweeps whose verdict may be chance."""
LEAST_RUNS = 2
"""The least number of runs between two looks: one for the leader, and one for its challenger."""


class Conclusion(StrEnum):
    SEPARATED = "separated"
    """One setting is shown to be better than all others."""
    EQUAL = "equal"
    """The best settings do not differ by more than what would be worth having."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is fixed before the first look."""

    looks: int
    """How many looks there are at most."""
    worth: float
    """The difference that is worth having, as a share of the best loss."""
    max_seeds: int
    """Of one setting."""

    @property
    def level(self) -> float:
        """The confidence level of the intervals at one look."""
        return 1 - ERROR / self.looks


@dataclass(frozen=True, slots=True)
class Estimate:
    """The settings of a sweep as the runs so far show them."""

    judged: SettingLosses
    intervals: Intervals
    """At the level of one look."""

    @property
    def leader(self) -> int:
        """The contender with the lowest loss."""
        return self.group[0]

    @property
    def group(self) -> tuple[int, ...]:
        """The contenders, best first: the settings that are not shown to be worse than another one."""
        return tuple(sorted(self.intervals.best_group, key=lambda one: float(self.intervals.means[one])))

    @property
    def degrees(self) -> int:
        """Degrees of freedom of the noise of seeds."""
        return sum(len(runs) - 1 for runs in self.judged.runs)

    @property
    def contenders(self) -> tuple[int, ...]:
        """The settings that get further seeds. While the noise of seeds is unknown, the intervals are too narrow, so
        the second best setting is one of them, too."""
        second = np.argsort(self.intervals.means, kind="stable")[:2]
        more = () if self.intervals.seeds else (int(one) for one in second)
        return tuple(dict.fromkeys([*self.group, *more]))


def verdict(estimate: Estimate, terms: Terms) -> Conclusion | None:
    """None while nothing is settled. Without the noise of seeds nothing is: two seeds of one setting differ, too."""
    if estimate.intervals.seeds is None:
        return None
    if len(estimate.group) == 1:
        return Conclusion.SEPARATED
    margin = terms.worth * float(estimate.intervals.means[estimate.leader])
    low, high = estimate.intervals.low[:, estimate.leader], estimate.intervals.high[:, estimate.leader]
    within = all(-margin <= low[one] and high[one] <= margin for one in estimate.group)
    return Conclusion.EQUAL if within else None


def room(estimate: Estimate, terms: Terms) -> int:
    """How many further seeds the contenders may get."""
    seeds = estimate.judged.seeds
    return sum(max(0, terms.max_seeds - int(seeds[one])) for one in estimate.contenders)


def next_seeds(estimate: Estimate, terms: Terms, looks_left: int) -> list[int]:
    """The settings that get a further seed before the next look, one entry a seed; empty if none may have more.

    While the noise of seeds is unknown, as many as it takes to know it. Then, pair by pair, the leader and the
    challenger that may be better than it by most: a seed for the one that has fewer, for both if they have equally
    many. Not more than would settle it if the differences stay as they are. Each round is at most twice as long as the
    one before, so that the last one may use up what may be run, and an easy question costs few runs.
    """
    known = estimate.intervals.seeds is not None
    wanted = math.ceil(room(estimate, terms) / (2**looks_left - 1)) if known else ENOUGH_DEGREES - estimate.degrees
    chosen: list[int] = []
    seeds = estimate.judged.seeds.copy()
    while len(chosen) < max(wanted, LEAST_RUNS):
        open_to = [one for one in estimate.contenders if seeds[one] < terms.max_seeds]
        if not open_to or (known and len(chosen) >= LEAST_RUNS and _would_settle(estimate, terms, seeds)):
            break
        for one in _pair(estimate, seeds, open_to) if known else [min(open_to, key=lambda one: seeds[one])]:
            chosen.append(one)
            seeds[one] += 1
    return chosen


def _pair(estimate: Estimate, seeds: Floats, open_to: Sequence[int]) -> list[int]:
    """Which of the leader and its strongest challenger gets a seed, given these numbers of `seeds`."""
    leader, half = estimate.leader, _half_widths(estimate, seeds)
    challengers = [one for one in estimate.group if one != leader and (leader in open_to or one in open_to)]
    challenger = min(challengers, key=lambda one: estimate.intervals.difference[one, leader] - half[one])
    able = [one for one in (leader, challenger) if one in open_to] or list(open_to)[:1]
    fewest = min(seeds[one] for one in able)
    return [one for one in able if seeds[one] == fewest]


def _would_settle(estimate: Estimate, terms: Terms, seeds: Floats) -> bool:
    """Whether the sweep would be settled with these numbers of `seeds` and the present differences."""
    others = [one for one in estimate.group if one != estimate.leader]
    half, difference = _half_widths(estimate, seeds), estimate.intervals.difference[:, estimate.leader]
    margin = terms.worth * float(estimate.intervals.means[estimate.leader])
    separated = all(difference[one] > half[one] for one in others)
    return separated or all(difference[one] + half[one] <= margin for one in others)


def _half_widths(estimate: Estimate, seeds: Floats) -> Floats:
    """The intervals of the differences to the leader, if the settings had these numbers of `seeds`."""
    against, leader = estimate.intervals, estimate.leader
    noise = against.seeds.sd**2 if against.seeds else 0.0
    half: Floats = against.q * np.sqrt(against.se[:, leader] ** 2 + noise * (1 / seeds + 1 / seeds[leader]))
    return half
