from dataclasses import replace

import numpy as np
import pytest
import scipy

from runner.verdict.draws import Draws, random_draws
from runner.verdict.intervals import document_degrees, draws_for, intervals, intervals_from, seed_noise
from runner.verdict.judged import Floats, SettingLosses
from tests.runner.synthetic_losses import Truth, losses_with

ROWS_ALONE = Truth([0.0, 0.02, 0.05], documents=120)
WITH_SEEDS = Truth([0.0, 0.02, 0.05, 0.1], seeds=3, documents=120, of_seeds=0.02)


def judged_with(truth: Truth) -> SettingLosses:
    return losses_with(truth, np.random.default_rng(1))


@pytest.mark.medium
@pytest.mark.parametrize("truth", [ROWS_ALONE, WITH_SEEDS], ids=["rows alone", "with seeds"])
def test_the_same_draws_give_what_the_formula_gives_pair_by_pair(truth: Truth) -> None:
    of = judged_with(truth)
    draws = draws_for(of, number=500)
    found = intervals_from(of, draws)
    half, se = widths(of, draws)
    np.testing.assert_allclose((found.high - found.low) / 2, half, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(found.se, se, rtol=1e-9, atol=1e-15)
    loss = [sum(map(float, runs.mean(axis=0))) / sum(map(float, of.tokens)) for runs in of.nll]
    np.testing.assert_allclose(found.difference, np.subtract.outer(loss, loss), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("truth", [ROWS_ALONE, WITH_SEEDS], ids=["rows alone", "with seeds"])
def test_other_draws_give_intervals_as_wide_within_a_twentieth(truth: Truth) -> None:
    of = judged_with(truth)
    found = intervals(of)
    half, _ = widths(of, draws_of_scipy(of))
    pairs = np.triu_indices(len(of.settings), 1)
    np.testing.assert_allclose(((found.high - found.low) / 2)[pairs], half[pairs], rtol=0.05)


@pytest.mark.parametrize(("documents", "number"), [(1, 4), (3, 500), (120, 2000), (70_000, 3)])
def test_documents_are_the_same_however_many_draws_one_call_makes(documents: int, number: int) -> None:
    """Otherwise, an interval would change with axosweep's version."""
    draws = random_draws(documents, 2, seed_degrees=0, document_degrees=1.0, number=number, seed=5)
    random = np.random.default_rng([5, 0])
    one_by_one = [np.bincount(random.integers(0, documents, documents), minlength=documents) for _ in range(number)]
    np.testing.assert_array_equal(np.concatenate([block.copy() for block in draws.counts()]), one_by_one)


def test_without_noise_of_rows_the_intervals_are_tukeys() -> None:
    of = judged_with(Truth([0.0] * 5, seeds=3, of_seeds=0.02, of_documents=0.0, of_rows_by_seed=0.0))
    found = intervals(of)
    assert found.seeds is not None
    assert found.seeds.degrees == 10
    assert found.q == pytest.approx(scipy.stats.studentized_range.ppf(0.95, 5, 10) / np.sqrt(2), rel=0.02)


def test_two_settings_with_equally_long_documents_have_students_interval() -> None:
    random = np.random.default_rng(3)
    nll = (np.ones((1, 12)), 1 + 0.1 * random.standard_normal((1, 12)))
    of = SettingLosses(("a", "b"), (("a0",), ("b0",)), nll, np.ones(12), np.arange(12), documents_known=False)
    found = intervals(of)
    test = scipy.stats.ttest_1samp((nll[1] - nll[0])[0], 0).confidence_interval(0.95)
    assert document_degrees(of) == pytest.approx(11)
    assert (found.low[1, 0], found.high[1, 0]) == pytest.approx((test.low, test.high), abs=0.006)


def test_settings_that_differ_by_rounding_are_equal() -> None:
    of = judged_with(ROWS_ALONE)
    found = intervals(replace(of, nll=(of.nll[0], of.nll[0] * (1 + 1e-13), of.nll[2])))
    assert found.difference[1, 0] > 0
    assert found.low[1, 0] < 0
    assert found.q < 6


def test_settings_that_give_equal_losses_are_equal_and_change_nothing_for_others() -> None:
    of = judged_with(ROWS_ALONE)
    twice = replace(of, settings=(*of.settings, "twin"), runs=(*of.runs, ("twin, seed 0",)), nll=(*of.nll, of.nll[0]))
    found, before = intervals(twice), intervals(of)
    assert abs(found.difference[0, 3]) == 0
    assert 0 < found.high[0, 3] < 1e-6
    assert found.q == pytest.approx(before.q, rel=1e-6)
    assert {0, 3} <= set(found.best_group)


def test_settings_with_equal_seeds_and_losses_are_equal_whatever_their_seeds_do() -> None:
    of = judged_with(WITH_SEEDS)
    found = intervals(replace(of, nll=(of.nll[0], of.nll[0], of.nll[2], of.nll[3])))
    assert np.isfinite(found.q)
    assert found.q < 6
    assert found.low[0, 1] < 0 < found.high[0, 1]


def test_a_diverged_seed_widens_no_other_interval_and_its_setting_is_not_among_the_best() -> None:
    of = judged_with(WITH_SEEDS)
    diverged = of.nll[1].copy()
    diverged[2] += 8 * of.tokens
    found, before = intervals(replace(of, nll=(of.nll[0], diverged, *of.nll[2:]))), intervals(of)
    assert found.seeds is not None
    assert found.seeds.unsteady == (1,)
    assert found.seeds.degrees == 6
    assert 1 not in found.best_group
    assert found.high[0, 3] - found.low[0, 3] < 1.5 * (before.high[0, 3] - before.low[0, 3])


def test_few_seeds_that_are_close_by_chance_make_no_other_setting_unsteady() -> None:
    of = judged_with(Truth([0.0, 0.0], seeds=4, documents=120, of_seeds=0.02))
    close = np.concatenate([of.nll[0][:1], of.nll[0][:1] + 1e-4 * of.tokens])
    noise = seed_noise(replace(of, nll=(close, of.nll[1]), runs=(of.runs[0][:2], of.runs[1])))
    assert noise is not None
    assert (noise.degrees, noise.unsteady) == (4, ())


def test_a_diverged_setting_of_one_seed_is_worse_and_widens_no_other_interval() -> None:
    of = judged_with(ROWS_ALONE)
    found, before = intervals(replace(of, nll=(*of.nll[:2], of.nll[2] * 1e4))), intervals(of)
    assert (found.low[2, :2] > 0).all()
    assert found.high[0, 1] - found.low[0, 1] == pytest.approx(before.high[0, 1] - before.low[0, 1], rel=0.1)


def test_one_document_with_most_of_the_tokens_is_not_taken_for_many() -> None:
    of = judged_with(ROWS_ALONE)
    long = np.where(of.document == 0, 1000.0, 1.0)
    found = intervals(replace(of, tokens=of.tokens * long, nll=tuple(one * long for one in of.nll)))
    assert document_degrees(of) > 20
    assert found.q > 10


def widths(of: SettingLosses, draws: Draws) -> tuple[Floats, Floats]:
    """Half widths of the intervals, and standard errors, written exactly like the formula."""
    pairs = [(i, j) for i in range(len(of.settings)) for j in range(len(of.settings)) if i != j]
    by_seed = [len(runs) for runs in of.nll]
    mean = [runs.mean(axis=0) for runs in of.nll]
    d = {pair: (mean[pair[0]] - mean[pair[1]]).sum() / of.tokens.sum() for pair in pairs}
    counts = np.concatenate([block.copy() for block in draws.counts()])[:, of.document]
    n = len(set(of.document.tolist()))
    off = {
        (i, j): np.sqrt(n / (n - 1)) * (counts @ (mean[i] - mean[j]) / (counts @ of.tokens) - d[i, j]) for i, j in pairs
    }
    se = {pair: scipy.stats.tstd(off[pair]) for pair in pairs}
    means = [runs.sum(axis=1) / of.tokens.sum() for runs in of.nll]
    nu = sum(by_seed) - len(by_seed)
    s2 = sum(((one - one.mean()) ** 2).sum() for one in means) / nu if nu >= 4 else 0.0
    s_b2 = np.maximum(s2 * nu / draws.chi_square - rows_part(of) / nu, 0) if nu >= 4 else np.zeros(len(draws.normal))
    per_document = np.array([of.tokens[of.document == one].sum() for one in range(n)])
    f = (per_document**2).sum() ** 2 / (per_document**4).sum() - 1
    scale, ratio = {}, {}
    for i, j in pairs:
        of_rows = off[i, j] * np.sqrt(f / draws.documents_chi_square)
        of_seeds = draws.normal[:, i] / np.sqrt(by_seed[i]) - draws.normal[:, j] / np.sqrt(by_seed[j])
        scale[i, j] = np.sqrt(se[i, j] ** 2 + s2 * (1 / by_seed[i] + 1 / by_seed[j]))
        ratio[i, j] = np.abs(of_rows + np.sqrt(s_b2) * of_seeds) / scale[i, j]
    q = np.quantile(np.max(list(ratio.values()), axis=0), 0.95)
    half, errors = np.zeros((2, len(by_seed), len(by_seed)))
    for pair in pairs:
        half[pair], errors[pair] = q * scale[pair], se[pair]
    return half, errors


def rows_part(of: SettingLosses) -> float:
    """The part of the seeds' sum of squares that the choice of documents explains: for what each run adds to its
    setting, the variance of a mean over documents."""
    n, squares = len(set(of.document.tolist())), 0.0
    for runs in of.nll:
        for run in runs:
            apart = run - runs.mean(axis=0)
            apart = apart - of.tokens * apart.sum() / of.tokens.sum()
            sums = [apart[of.document == one].sum() for one in range(n)]
            squares += n / (n - 1) * float(np.square(sums).sum()) / of.tokens.sum() ** 2
    return squares


def draws_of_scipy(of: SettingLosses) -> Draws:
    n, nu, number = of.documents, int(of.seeds.sum()) - len(of.settings), 10_000
    random = np.random.default_rng(11)
    counts = scipy.stats.multinomial(n, np.full(n, 1 / n)).rvs(number, random_state=random).astype(float)
    return Draws(
        counts=lambda: iter([counts]),
        normal=scipy.stats.norm.rvs(size=(number, len(of.settings)), random_state=random),
        chi_square=scipy.stats.chi2(max(nu, 1)).rvs(number, random_state=random),
        documents_chi_square=scipy.stats.chi2(document_degrees(of)).rvs(number, random_state=random),
    )
