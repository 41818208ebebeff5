"""Differences between settings with intervals that hold for all pairs at once, with 95 % confidence.

Each draw of a bootstrap resamples documents, the same ones for all settings, so that what two settings have in common
cancels. The noise of seeds is pooled over the settings that were trained with several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.verdict.judged import Floats, Judged

DRAWS = 10_000
LEVEL = 0.95
ENOUGH_DEGREES = 4
"""With fewer degrees of freedom the pooled spread of seeds is no estimate, and is left out."""


@dataclass(frozen=True, slots=True)
class SeedNoise:
    """How much the mean loss of one setting differs from seed to seed."""

    sd: float
    degrees: int
    """Of freedom: the runs, less one for each setting."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Of Judged.settings; matrices are settings x settings, row minus column, in nats per token."""

    means: Floats
    """The loss of each setting, the mean over all tokens and seeds."""
    difference: Floats
    low: Floats
    high: Floats
    se: Floats
    """The standard error of each difference, by rows alone."""
    q: float
    """The half width of the intervals, in standard errors."""
    seeds: SeedNoise | None
    """Null if it is unknown: then the intervals tell the noise of the rows only."""

    @property
    def best_group(self) -> tuple[int, ...]:
        """Every setting that is not shown to be worse than any other."""
        return tuple(int(one) for one in np.flatnonzero(~(self.low > 0).any(axis=1)))


def seed_noise(of: Judged) -> SeedNoise | None:
    """Pooled over the settings; None with fewer than ENOUGH_DEGREES degrees of freedom."""
    degrees = sum(len(runs) - 1 for runs in of.runs)
    if degrees < ENOUGH_DEGREES:
        return None
    squares = sum(float(((means - means.mean()) ** 2).sum()) for means in of.run_means)
    return SeedNoise(float(np.sqrt(squares / degrees)), degrees)


def intervals(of: Judged, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> Intervals:
    """With d the difference of two settings' token-weighted means, d_b that of a draw, se = sd(d_b), s the spread of
    seeds with nu degrees of freedom, a and b the seeds of the two, z standard normal and s_b^2 = s^2 nu / chi^2_nu:
    q is the `level` quantile over draws of the maximum over pairs of

        |d_b - d + s (z_i / sqrt(a) - z_j / sqrt(b))| / sqrt(se^2 + s_b^2 (1/a + 1/b))

    and each interval is d +- q sqrt(se^2 + s^2 (1/a + 1/b)).
    """
    random, noise = np.random.default_rng(seed), seed_noise(of)
    nll, tokens = _by_document(of)
    drawn = np.empty((draws, len(of.settings)))
    for draw in range(draws):
        weights = np.bincount(random.integers(0, len(tokens), len(tokens)), minlength=len(tokens))
        drawn[draw] = weights @ nll / (weights @ tokens)
    means = nll.sum(axis=0) / tokens.sum()
    off = drawn - means
    covariance = np.atleast_2d(np.cov(off.T))
    variance = np.diag(covariance)
    squares = np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0.0)
    seeds = 1 / of.seeds[:, None] + 1 / of.seeds[None, :]
    spread = np.zeros(draws)
    if noise is not None:
        off = off + noise.sd * random.standard_normal(off.shape) / np.sqrt(of.seeds)
        spread = noise.sd**2 * noise.degrees / random.chisquare(noise.degrees, draws)
    maxima = np.array(
        [
            _largest(np.abs(one[:, None] - one[None, :]), np.sqrt(squares + variance_of_seed * seeds))
            for one, variance_of_seed in zip(off, spread, strict=True)
        ]
    )
    q = float(np.quantile(maxima, level))
    difference = means[:, None] - means[None, :]
    half = q * np.sqrt(squares + (noise.sd**2 if noise else 0.0) * seeds)
    np.fill_diagonal(half, 0.0)
    return Intervals(means, difference, difference - half, difference + half, np.sqrt(squares), q, noise)


def _by_document(of: Judged) -> tuple[Floats, Floats]:
    """The mean over seeds of the negative log-likelihood by document and setting, and the tokens by document."""
    nll = np.stack([np.bincount(of.document, weights=one.mean(axis=0)) for one in of.nll], axis=1)
    return nll, np.bincount(of.document, weights=of.tokens)


def _largest(numerator: Floats, denominator: Floats) -> float:
    """Of the ratios; two settings with equal rows have 0 / 0, and do not differ."""
    return float(np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0).max())
