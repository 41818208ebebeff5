"""What stopping at rungs saves, and whether it finds the best run, on the recorded losses of a grid of real runs."""

from __future__ import annotations

from statistics import fmean
from typing import Any

import numpy as np
import pytest

from benchmarks.search_curves import SEEDS, Curves
from benchmarks.search_replay import Grid, Order, OurRule, play

ORDERS = 24


@pytest.mark.medium
@pytest.mark.parametrize(
    ("terms", "most"), [({"audit": False, "margin": False, "keep_rate": False}, 0.45), ({}, 0.55)], ids=["bare", "all"]
)
def test_rungs_save_half_of_a_grid_and_find_its_best_run(terms: dict[str, Any], most: float) -> None:
    curves = Curves.read()
    grids = [Grid.of(curves, np.flatnonzero(curves.seed == seed).tolist()) for seed in SEEDS]
    shares, regrets = [], []
    for number in range(ORDERS):
        grid = grids[number % len(grids)]
        order = Order.drawn(grid.size, number)
        played = play(grid, order, OurRule.of(grid, order, **terms))
        winner = played.winner(grid)
        assert winner is not None
        shares.append(played.steps / grid.steps)
        regrets.append(float(grid.final[winner]) - min(map(float, grid.final)))

    assert fmean(shares) <= most
    assert max(regrets) < 0.01, "the best run, or one that is not measurably worse"
