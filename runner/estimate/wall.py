"""How long the runs of a plan take together, side by side in their pools. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from runner.cost.types import NOTHING, Prediction, Range
from runner.estimate.types import THIS_MACHINE, Pool, RunCost

WARM_START = Range(5.0, 12.0, 30.0)
"""A guess: Axolotl's imports before the first step of a launch on this machine."""


def wall(runs: Sequence[RunCost], pools: Mapping[str, Pool], preparing: Sequence[Range]) -> Range | None:
    """The time for preparing, then for the runs of each pool in their order, as slots become free. On Modal, all
    datasets are prepared at the same time."""
    if any(one.prediction is None for one in runs):
        return None
    by_pool: dict[Pool, list[Prediction]] = {}
    for one in runs:
        assert one.prediction is not None
        by_pool.setdefault(pools[one.key], []).append(one.prediction)
    here = next((pool for pool in by_pool if pool.name == THIS_MACHINE), None)
    ends = [_pool_end(pool, runs) for pool, runs in by_pool.items()]
    training = Range(*(max((getattr(one, name) for one in ends), default=0.0) for name in ("low", "likely", "high")))
    return _together(preparing, here.most if here else None) + training + (WARM_START if here else NOTHING)


def _pool_end(pool: Pool, runs: Sequence[Prediction]) -> Range:
    """Where containers do several runs, all of them boot at the beginning."""
    if not pool.reused:
        return _together([one.rented for one in runs], pool.most)
    boots = [one.boot for one in runs]
    boot = Range(min(one.low for one in boots), max(one.likely for one in boots), max(one.high for one in boots))
    own = pool.containers(len(runs)) / len(runs)
    later = [one.seconds + one.around + one.boot.scaled(one.boots - own) for one in runs]
    return boot + _together(later, pool.most)


def _together(times: Sequence[Range], most: int | None) -> Range:
    return Range(*(_makespan([getattr(one, name) for one in times], most) for name in ("low", "likely", "high")))


def _makespan(seconds: Sequence[float], most: int | None) -> float:
    """The end of the last one, if each starts as soon as one of `most` slots is free.

    >>> _makespan([3.0, 1.0, 1.0], 2)
    3.0
    """
    free = [0.0] * min(len(seconds), most or len(seconds))
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free, default=0.0)
