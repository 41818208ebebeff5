"""The sequence that points are drawn from: Sobol's own, evenly spread after scrambling, and the same everywhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from decimal import Decimal

import numpy as np
import pytest
import scipy

from runner.composing.sobol import MOST_DIMENSIONS, sobol, unscrambled


def _array(points: Iterator[tuple[Decimal, ...]], count: int) -> np.ndarray:
    return np.array([[float(one) for one in point] for point in itertools.islice(points, count)])


def test_without_scrambling_it_is_the_sequence_of_scipy_in_every_dimension() -> None:
    expected = scipy.stats.qmc.Sobol(MOST_DIMENSIONS, scramble=False, bits=32).random(1024)
    assert np.array_equal(_array(unscrambled(MOST_DIMENSIONS), 1024), expected)


@pytest.mark.parametrize("seed", [0, 7])
def test_scrambled_each_dimension_has_one_point_in_each_equal_part(seed: int) -> None:
    points = _array(sobol(MOST_DIMENSIONS, seed), 256)
    assert (np.sort(np.floor(points * 256), axis=0) == np.arange(256)[:, None]).all()
    first_two = {tuple(one) for one in np.floor(points[:, :2] * 16)}
    assert len(first_two) == 256, "the first two dimensions fill a grid of 16 x 16, too"


def test_scrambled_it_is_as_even_as_that_of_scipy() -> None:
    ours = [scipy.stats.qmc.discrepancy(_array(sobol(5, seed), 256)) for seed in range(5)]
    theirs = [scipy.stats.qmc.discrepancy(scipy.stats.qmc.Sobol(5, seed=seed).random(256)) for seed in range(5)]
    assert np.mean(ours) < 1.1 * np.mean(theirs)


def test_seeds_differ_and_a_seed_gives_these_points_on_every_machine() -> None:
    assert _array(sobol(3, 1), 8).tolist() != _array(sobol(3, 2), 8).tolist()
    first = [[str(round(one, 6)) for one in point] for point in itertools.islice(sobol(2, 0), 3)]
    assert first == [["0.891303", "0.985879"], ["0.170733", "0.213906"], ["0.338356", "0.672240"]]
