"""How much of the steps of a search with rungs are done at least. Pure."""

from __future__ import annotations

from modal_app.halving.choose import AUDITED
from modal_app.store.rungs import Rungs


def least_share(rungs: Rungs, runs: int) -> float:
    """Of the steps of that many runs, if only the best and those of the audit go on from each rung: no run within the
    noise of the cut, and none that was among the best when fewer had come.

    >>> round(least_share(Rungs("", (0.2, 0.6), 3, audit=False), 24), 4)
    0.3667
    >>> least_share(Rungs("", (0.5,), 3, audit=False), 1)
    1.0
    """
    share, before, there = 0.0, 0.0, float(runs)
    audited = 0.0
    for fraction in rungs.fractions:
        share += (there + audited) * (fraction - before)
        best = max(float(there // rungs.eta), 1.0)
        audited += (there - best) / AUDITED if rungs.audit else 0.0
        before, there = fraction, best
    return (share + (there + audited) * (1 - before)) / runs
