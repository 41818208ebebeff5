"""A run's losses -> its flags: diverged, flat, overfits. Pure. Another one, healed, does not depend on losses.

Flags depend only on the losses, whatever metric runs are compared by: a diverged run is useless by every metric.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

from runner.compare.metrics import Curves

EVAL, TRAIN = "eval_loss", "loss"

DIVERGED, FLAT, OVERFITS = "diverged", "flat", "overfits"

HEALED = "healed"
"""It was out of memory, and has a smaller micro batch than requested (on_oom=halve)."""

WORSE_BY = 1.5
"""A loss that ends above this many times its first value has diverged."""

MOVED_BY = 0.01
"""A loss that always stayed within this fraction of its first value is flat."""


def flags_of(curves: Curves, *, ended: bool, nan: bool = False) -> tuple[str, ...]:
    """`ended`: whether the run has trained to its last step. `nan`: whether its worker stopped it because of a NaN.

    diverged: a loss was NaN or infinite, or the held-out loss (without one, the training loss) ended above WORSE_BY
    times its first value. flat: the run has ended, and that loss never moved by MOVED_BY. overfits: the held-out loss
    rose at each of the last two evaluations, and the training loss between them fell.
    """
    points = curves.by_name.get(EVAL) or curves.by_name.get(TRAIN) or {}
    if nan or not_finite(curves) or _worse(points):
        return (DIVERGED,)
    return tuple(flag for flag, is_so in ((FLAT, ended and _flat(points)), (OVERFITS, _overfits(curves))) if is_so)


def not_finite(curves: Curves) -> bool:
    """Whether a loss was ever NaN or infinite."""
    return any(not math.isfinite(value) for name in (EVAL, TRAIN) for value in curves.by_name.get(name, {}).values())


def _worse(points: Mapping[int, float]) -> bool:
    values = list(points.values())
    return len(values) > 1 and 0 < WORSE_BY * values[0] < values[-1]


def _flat(points: Mapping[int, float]) -> bool:
    values = list(points.values())
    return len(values) > 1 and all(abs(value - values[0]) < MOVED_BY * values[0] for value in values)


def _overfits(curves: Curves) -> bool:
    evals = list(curves.by_name.get(EVAL, {}).items())[-3:]
    if len(evals) < 3 or not all(one[1] < other[1] for one, other in itertools.pairwise(evals)):
        return False
    trained = [_mean_between(curves, one[0], other[0]) for one, other in itertools.pairwise(evals)]
    return trained[0] is not None and trained[1] is not None and trained[1] < trained[0]


def _mean_between(curves: Curves, after: int, until: int) -> float | None:
    """The mean training loss that was logged after one step and until another."""
    values = [value for step, value in curves.by_name.get(TRAIN, {}).items() if after < step <= until]
    return sum(values) / len(values) if values else None
