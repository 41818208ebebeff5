"""Differences between settings with intervals that hold for all pairs at once, with 95 % confidence.

Each draw of a bootstrap resamples documents, the same ones for all settings, so that what two settings have in common
cancels. The noise of seeds is pooled over the settings that were trained with several.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runner.verdict.draws import Draws, degrees_of_freedom, random_draws
from runner.verdict.judged import Floats, SettingLosses
from runner.verdict.seed_noise import SeedNoise, pooled_noise

DRAWS = 10_000
LEVEL = 0.95
RESOLUTION = 1e-9
"""Of a loss: what is nearer than this, is equal. Sums of floats are no more exact than that."""
PAIRS_AT_A_TIME = 400
"""Draws whose pairs are looked at together: what fits into a processor's cache with 200 settings."""


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals of the settings in SettingLosses.settings. Matrices are settings x settings, row minus column, in nats
    per token."""

    means: Floats
    """The loss of each setting, the mean over all tokens and seeds."""
    difference: Floats
    low: Floats
    high: Floats
    se: Floats
    """The standard error of each difference, by rows alone."""
    q: float
    """The half width of the intervals, in standard errors of rows and seeds together."""
    seeds: SeedNoise | None
    """Null if it is unknown: then the intervals tell the noise of the rows only."""

    @property
    def best_group(self) -> tuple[int, ...]:
        """Every setting that is not shown to be worse than any other, without those that have diverged with one of
        their seeds."""
        unsteady = self.seeds.unsteady if self.seeds else ()
        group = tuple(int(one) for one in np.flatnonzero(~(self.low > 0).any(axis=1)))
        return tuple(one for one in group if one not in unsteady) or group


def intervals(of: SettingLosses, *, draws: int = DRAWS, level: float = LEVEL, seed: int = 0) -> Intervals:
    """The intervals of these settings, with random draws. `intervals_from` has the formula."""
    return intervals_from(of, draws_for(of, number=draws, seed=seed), level)


def draws_for(of: SettingLosses, *, number: int = DRAWS, seed: int = 0) -> Draws:
    noise = seed_noise(of)
    return random_draws(
        of.documents,
        len(of.settings),
        seed_degrees=noise.degrees if noise else 0,
        document_degrees=document_degrees(of),
        number=number,
        seed=seed,
    )


def intervals_from(of: SettingLosses, draws: Draws, level: float = LEVEL) -> Intervals:
    """With d the difference of two settings' token-weighted means, d_b that of a draw, se = sd(d_b), s the spread of
    seeds with nu degrees of freedom, t the part of it that comes from the rows, a and b the seeds of the two, z
    standard normal and s_b^2 = s^2 nu / chi^2_nu - t^2, or 0 where that is negative: q is the `level` quantile over
    draws of the maximum over pairs of

        |(d_b - d) sqrt(f / chi^2_f) + s_b (z_i / sqrt(a) - z_j / sqrt(b))| / sqrt(se^2 + s^2 (1/a + 1/b))

    and each interval is d +- q sqrt(se^2 + s^2 (1/a + 1/b)). f: `document_degrees`. Each d_b - d is taken
    sqrt(n / (n - 1)) times as large as drawn, for n documents.
    """
    noise = seed_noise(of)
    sums, tokens = _by_document(of)
    total = tokens.sum()
    means = sums.sum(axis=0) / total
    residuals = sums - tokens[:, None] * means
    residuals -= residuals[:, [means.argmin()]]  # common to all, so it only costs digits
    off = draws.means_of(residuals, tokens[:, None]) * np.sqrt(of.documents / (of.documents - 1))
    squares = _squares(off)
    of_seeds = _seed_variances(of, noise)
    scale = np.sqrt(squares + of_seeds[:, None] + of_seeds[None, :] + _resolution(means) ** 2)
    off *= np.sqrt(document_degrees(of) / draws.documents_chi_square)[:, None]
    if noise is not None and noise.sd > 0:
        beyond_rows = np.maximum(noise.degrees / draws.chi_square - (noise.by_rows / noise.sd) ** 2, 0.0)
        off += np.sqrt(beyond_rows)[:, None] * np.sqrt(of_seeds) * draws.normal
    q = float(np.quantile(_largest(off, scale), level))
    difference = means[:, None] - means[None, :]
    half = q * scale
    np.fill_diagonal(half, 0.0)
    return Intervals(means, difference, difference - half, difference + half, np.sqrt(squares), q, noise)


def seed_noise(of: SettingLosses) -> SeedNoise | None:
    """Pooled over the settings; None if they have too few for that."""
    by_run = [np.stack([_sum(of, run) for run in setting]) for setting in of.nll]
    return pooled_noise(by_run, _sum(of, of.tokens))


def document_degrees(of: SettingLosses) -> float:
    return float(degrees_of_freedom(_sum(of, of.tokens)))


def _sum(of: SettingLosses, by_row: Floats) -> Floats:
    return np.bincount(of.document, weights=by_row, minlength=of.documents)


def _by_document(of: SettingLosses) -> tuple[Floats, Floats]:
    """The mean over seeds of the negative log-likelihood by document and setting, and the tokens by document."""
    return np.stack([_sum(of, one.mean(axis=0)) for one in of.nll], axis=1), _sum(of, of.tokens)


def _squares(off: Floats) -> Floats:
    """The variance of each difference over the draws."""
    covariance = np.atleast_2d(np.cov(off.T))
    variance = np.diag(covariance)
    squares: Floats = np.maximum(variance[:, None] + variance[None, :] - 2 * covariance, 0.0)
    return squares


def _seed_variances(of: SettingLosses, noise: SeedNoise | None) -> Floats:
    """The variance of each setting's mean that comes from its seeds: pooled, except for a setting with a diverged seed,
    which has its own."""
    if noise is None:
        return np.zeros(len(of.settings))
    variances = np.full(len(of.settings), noise.sd**2)
    for at in noise.unsteady:
        variances[at] = of.run_means[at].var(ddof=1)
    return variances / of.seeds


def _resolution(means: Floats) -> Floats:
    return np.maximum(RESOLUTION * np.maximum(means[:, None], means[None, :]), RESOLUTION**2)


def _largest(off: Floats, scale: Floats) -> Floats:
    """For each draw, the largest difference between two settings, each divided by its scale."""
    settings, weights = off.shape[1], 1 / scale
    largest = np.zeros(len(off))
    buffer = np.empty((settings, PAIRS_AT_A_TIME))
    for start in range(0, len(off), PAIRS_AT_A_TIME):
        block = np.ascontiguousarray(off[start : start + PAIRS_AT_A_TIME].T)
        here = largest[start : start + PAIRS_AT_A_TIME]
        for one in range(settings - 1):
            apart = np.subtract(block[one + 1 :], block[one], out=buffer[one + 1 :, : block.shape[1]])
            apart *= weights[one, one + 1 :, None]
            np.maximum(here, np.abs(apart, out=apart).max(axis=0), out=here)
    return largest
