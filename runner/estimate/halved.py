"""The smallest part of its runs' work that a search with rungs does, compared with training each run to its end.
Pure."""

from __future__ import annotations

from dataclasses import dataclass

from modal_app.store.rungs import Rungs
from runner.cost.types import Range


@dataclass(frozen=True, slots=True)
class Least:
    """If only the best and the audited runs go on from each rung: no run within the noise of the cut, and none that was
    among the best when fewer had come."""

    steps: float
    """Of the steps of all runs."""
    starts: Range
    """How often a run starts, as a mean over all runs: once, and once more each time that it is promoted. At the low
    end, no run that goes on has stopped before."""

    def of(self, whole: Range, starting: float) -> Range:
        """`whole`: what the runs take to their ends. `starting`: the part of it that each start takes, from 0 to 1."""

        def share(starts: float) -> float:
            return starting * starts + (1 - starting) * self.steps

        return Range(
            whole.low * share(self.starts.low),
            whole.likely * share(self.starts.likely),
            whole.high * share(self.starts.high),
        )


EVERYTHING = Least(1.0, Range.exactly(1.0))


def least_of(rungs: Rungs, runs: int, audited: int, at_rungs: int = 0) -> Least:
    """The least work of that many runs. `audited`: how many of them never stop. `at_rungs`: further runs, which have
    stopped before and do nothing more.

    >>> least_of(Rungs("", (0.2, 0.6), 3), 24, 0)
    Least(steps=0.3666..., starts=Range(low=1.0, likely=1.4166..., high=1.4166...))
    >>> least_of(Rungs("", (0.5,), 3), 1, 0).steps
    1.0
    """
    if not runs:
        return Least(0.0, Range.exactly(0.0))
    steps, before, there = 0.0, 0.0, float(runs)
    others, promoted = 0.0, 0.0  # `others`: audited runs that are not among the best
    for fraction in rungs.fractions:
        steps += (there + others) * (fraction - before)
        best = max(float(there // rungs.eta), 1.0)
        others += (there - best) * audited / runs
        promoted += best
        before, there = fraction, best
    steps += (there + others) * (1 - before)
    every = runs + at_rungs
    return Least(steps / every, Range(runs / every, (runs + promoted) / every, (runs + promoted) / every))
