"""How much the loss of one setting differs from seed to seed, pooled over the settings that have several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from runner.verdict.judged import Floats

ENOUGH_DEGREES = 4
"""With fewer degrees of freedom the pooled spread of seeds is no estimate, and is left out."""

UNSTEADY_BY = 20
"""A setting whose seeds spread this many times as much as those of the others: one of them has diverged."""


@dataclass(frozen=True, slots=True)
class SeedNoise:
    sd: float
    """Of the mean losses of runs that differ in the seed alone, on these rows."""
    degrees: int
    """Of freedom: the runs, less one for each setting."""
    by_rows: float = 0.0
    """The part of `sd` that comes from the choice of the rows: seeds disagree about single documents, too, and less of
    that is left the more documents there are. The draws of documents have this part already."""
    unsteady: tuple[int, ...] = ()
    """The settings whose seeds spread far more than those of the others. They do not count in `sd`."""


@dataclass(frozen=True, slots=True)
class _Spread:
    """Sums of squares of one setting's runs."""

    degrees: int
    total: float
    by_rows: float

    @property
    def variance(self) -> float:
        return self.total / self.degrees


def pooled_noise(settings: Sequence[Floats], tokens: Floats) -> SeedNoise | None:
    """None with fewer than ENOUGH_DEGREES degrees of freedom. `settings`: for each one, the summed negative
    log-likelihood by run and document. `tokens`: by document."""
    spreads = {at: _spread(runs, tokens) for at, runs in enumerate(settings) if len(runs) > 1}
    steady = _steady(spreads)
    degrees = sum(one.degrees for one in steady.values())
    if degrees < ENOUGH_DEGREES:
        return None
    return SeedNoise(
        sd=float(np.sqrt(sum(one.total for one in steady.values()) / degrees)),
        degrees=degrees,
        by_rows=float(np.sqrt(sum(one.by_rows for one in steady.values()) / degrees)),
        unsteady=tuple(at for at in spreads if at not in steady),
    )


def _spread(runs: Floats, tokens: Floats) -> _Spread:
    total, documents = tokens.sum(), len(tokens)
    means = runs.sum(axis=1) / total
    off = runs - means[:, None] * tokens
    off -= off.mean(axis=0)
    return _Spread(
        degrees=len(runs) - 1,
        total=float(((means - means.mean()) ** 2).sum()),
        by_rows=float((off**2).sum() / total**2 * documents / (documents - 1)),
    )


def _steady(spreads: Mapping[int, _Spread]) -> dict[int, _Spread]:
    """The steadier half, with ENOUGH_DEGREES at least, and on from there, as long as the next one is not UNSTEADY_BY
    times as far spread. Fewer degrees may be that small by chance."""
    ascending = sorted(spreads, key=lambda at: spreads[at].variance)
    steady: dict[int, _Spread] = {}
    for at in ascending:
        degrees = sum(one.degrees for one in steady.values())
        if degrees >= ENOUGH_DEGREES and 2 * len(steady) >= len(ascending):
            pooled = sum(one.total for one in steady.values()) / degrees
            if spreads[at].variance > UNSTEADY_BY**2 * pooled > 0:
                break
        steady[at] = spreads[at]
    return steady
