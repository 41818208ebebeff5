from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from runner.verdict.intervals import intervals
from runner.verdict.power import NeededData, needed
from tests.runner.synthetic_losses import Truth, losses_with

TIMES = 120
BY_ROWS = Truth([0.0, 0.04], documents=80)
# Many settings, so that the spread of seeds is known well.
BY_SEEDS = Truth([0.0, *[0.05] * 5], seeds=4, documents=200, of_seeds=0.03, of_documents=0.03)


def asked_of(truth: Truth, difference: float) -> list[NeededData]:
    """Computed from many sets of losses, since each one shows the noise only roughly."""
    random = np.random.default_rng(2)
    sets = [losses_with(truth, random) for _ in range(60)]
    return [needed(of, intervals(of, draws=250), 1, 0, difference=difference) for of in sets]


def mean(numbers: Iterable[int | None]) -> int:
    return round(np.mean([one for one in numbers if one is not None]))


def share_separated(truth: Truth) -> float:
    random = np.random.default_rng(9)
    found = [intervals(losses_with(truth, random), draws=500, seed=at) for at in range(TIMES)]
    return sum(bool(one.low[1, 0] > 0) for one in found) / TIMES


def test_as_many_documents_as_needed_tell_settings_apart_in_four_of_five_cases() -> None:
    wanted = asked_of(BY_ROWS, 0.04)
    documents = mean(one.documents for one in wanted)
    assert documents > 2 * BY_ROWS.documents
    assert mean(one.rows for one in wanted) == pytest.approx(BY_ROWS.rows * documents, rel=0.1)
    assert share_separated(replace(BY_ROWS, documents=documents)) == pytest.approx(0.8, abs=0.1)


@pytest.mark.medium
@pytest.mark.parametrize("seeds", [2, 4])
def test_as_many_seeds_as_needed_tell_settings_apart_in_four_of_five_cases(seeds: int) -> None:
    wanted = mean(one.seeds for one in asked_of(replace(BY_SEEDS, seeds=seeds), 0.05))
    assert wanted > seeds
    assert share_separated(replace(BY_SEEDS, seeds=wanted)) == pytest.approx(0.8, abs=0.1)


def test_more_rows_do_not_quiet_seeds_and_more_seeds_do_not_quiet_rows() -> None:
    loud_seeds = asked_of(replace(BY_SEEDS, of_seeds=0.2), 0.1)[0]
    assert loud_seeds.documents is None
    assert loud_seeds.seeds is not None
    assert asked_of(replace(BY_SEEDS, of_documents=1.0), 0.01)[0].seeds is None


def test_without_several_seeds_it_is_unknown_how_many_are_needed() -> None:
    assert asked_of(BY_ROWS, 0.04)[0].seeds is None


def test_nothing_tells_settings_apart_that_do_not_differ() -> None:
    assert asked_of(BY_SEEDS, 0.0)[0] == NeededData(0.0, None, None, None)
