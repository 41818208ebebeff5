"""Whether a run is shown to be worse than another one at a rung. Pure.

Two runs are rated on the same documents, so their losses are paired: most of what makes a document hard is the same for
both. The standard error of the difference comes from GROUPS groups of documents, each of which is taken as one draw.
What seeds add to it is known only where runs of the search differ in their seed alone, and is taken from the settings
of the best runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from modal_app.halving.snapshot import Reading

GROUPS = 64
"""The number of groups into which documents are put by their ids. With so many, the standard error itself is known
within 9 %."""


def within_noise(there: Mapping[str, Reading], runs: Sequence[str], top: Sequence[str]) -> list[str]:
    """The runs whose difference to the last one of `top`, the run at the cut, is within one standard error. `top`: the
    best first. Without losses of the same documents, none is."""
    cut = there[top[-1]]
    of_seeds = 2 * seed_variance(_of_equal_settings(there, top))
    return [run for run in runs if _is_near(there[run], cut, of_seeds)]


def standard_error(one: Reading, other: Reading) -> float | None:
    """The standard error of the difference of two runs' losses per token, in nats; None without losses of the same
    documents."""
    if not one.tokens or one.tokens != other.tokens:
        return None
    total, used = sum(one.tokens), sum(count > 0 for count in one.tokens)
    if used < 2:
        return None
    mean = (sum(one.nll) - sum(other.nll)) / total
    residuals = [
        ours - theirs - mean * count for ours, theirs, count in zip(one.nll, other.nll, one.tokens, strict=True)
    ]
    return math.sqrt(used / (used - 1) * math.fsum(residual**2 for residual in residuals)) / total


def _is_near(one: Reading, cut: Reading, of_seeds: float) -> bool:
    error = standard_error(one, cut)
    if error is None or one.loss is None or cut.loss is None:
        return False
    return one.loss - cut.loss <= math.hypot(error, math.sqrt(of_seeds))


def _of_equal_settings(there: Mapping[str, Reading], top: Sequence[str]) -> list[Reading]:
    """All seeds of the settings that have a run among the best: those that nearly diverge differ far more."""
    settings = {there[run].setting for run in top}
    return [one for one in there.values() if one.setting in settings]


def seed_variance(readings: Iterable[Reading]) -> float:
    """The variance of the loss between seeds of one setting, pooled over the settings; 0 if none has several."""
    by_setting: dict[str, list[float]] = {}
    for one in readings:
        if one.setting and one.loss is not None:
            by_setting.setdefault(one.setting, []).append(one.loss)
    squares, degrees = 0.0, 0
    for losses in by_setting.values():
        mean = math.fsum(losses) / len(losses)
        squares += math.fsum((loss - mean) ** 2 for loss in losses)
        degrees += len(losses) - 1
    return squares / degrees if degrees else 0.0
