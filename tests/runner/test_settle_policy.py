"""Which settings get further seeds next, and when a sweep is settled, with invented rows."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from runner.settle.policy import Conclusion, Estimate, Terms, next_seeds, room, verdict
from runner.verdict.intervals import Intervals
from runner.verdict.judged import Floats, SettingLosses
from runner.verdict.seed_noise import SeedNoise
from tests.runner.settling import TERMS, World, play


def estimate(losses: list[float], seeds: list[int], *, sd: float | None = 0.01, q: float = 3.0) -> Estimate:
    """Settings with these losses, each with so many seeds. `sd`: that of seeds; None if it is unknown."""
    one: Floats = np.ones(1)
    judged = SettingLosses(
        settings=tuple(map(str, range(len(losses)))),
        runs=tuple(tuple(f"{setting}.{seed}" for seed in range(many)) for setting, many in enumerate(seeds)),
        nll=tuple(np.full((many, 1), loss) for loss, many in zip(losses, seeds, strict=True)),
        tokens=one,
        document=np.zeros(1, np.intp),
        documents_known=True,
    )
    means = np.array(losses)
    difference = means[:, None] - means[None, :]
    half = q * (sd or 0.001) * np.sqrt(1 / judged.seeds[:, None] + 1 / judged.seeds[None, :])
    np.fill_diagonal(half, 0.0)
    noise = None if sd is None else SeedNoise(sd, sum(seeds) - len(seeds))
    se = np.zeros_like(difference)
    return Estimate(judged, Intervals(means, difference, difference - half, difference + half, se, q, noise))


def test_seeds_go_to_the_leader_and_its_challenger_and_to_no_setting_that_is_worse() -> None:
    now = estimate([1.0, 1.02, 1.5, 1.01], [2, 2, 2, 2])
    assert now.group == (0, 3, 1)
    assert Counter(next_seeds(now, TERMS, 20)) == {0: 1, 3: 1}, "two runs, for the pair that is nearest"
    assert Counter(next_seeds(now, TERMS, 2)) == {0: 3, 3: 3}, "18 may still be run: 6, then 12"


def test_no_more_seeds_are_run_than_would_settle_it_if_the_differences_stay_as_they_are() -> None:
    now = estimate([1.0, 1.05], [3, 3], q=8.0)  # +- 0.08 sqrt(1/a + 1/b): within 0.05 with six seeds each
    assert now.group == (0, 1)
    assert Counter(next_seeds(now, TERMS, 1)) == {0: 3, 1: 3}, "ten might be run"


def test_a_challenger_with_fewer_seeds_catches_up_first() -> None:
    assert next_seeds(estimate([1.0, 1.01], [5, 2]), TERMS, 20) == [1, 1]


def test_no_setting_gets_more_seeds_than_it_may_have() -> None:
    now = estimate([1.0, 1.01, 1.011], [8, 8, 7])
    assert room(now, TERMS) == 1
    assert next_seeds(now, TERMS, 2) == [2]
    assert next_seeds(estimate([1.0, 1.01], [8, 8]), TERMS, 2) == []


def test_while_it_is_unknown_how_much_seeds_differ_the_first_four_measure_it() -> None:
    alone = estimate([1.0, 1.4, 1.5], [1, 1, 1], sd=None)
    assert alone.group == (0,)
    assert verdict(alone, TERMS) is None, "by rows alone it is ahead, and a second seed of it might be, too"
    assert Counter(next_seeds(alone, TERMS, 4)) == {0: 2, 1: 2}
    tied = estimate([1.0, 1.0001, 1.0002], [1, 2, 1], sd=None)
    assert Counter(next_seeds(tied, TERMS, 4)) == {0: 2, 2: 1}, "one of the four is there"


@pytest.mark.parametrize(
    ("losses", "seeds", "expected"),
    [
        ([1.0, 1.2, 1.3], [3, 3, 1], Conclusion.SEPARATED),
        ([1.0, 1.004, 1.3], [8, 8, 1], None),
        ([1.0, 1.0, 1.3], [8, 8, 1], None),
    ],
)
def test_a_sweep_is_settled_when_one_setting_is_better_than_all_others(
    losses: list[float], seeds: list[int], expected: Conclusion | None
) -> None:
    assert verdict(estimate(losses, seeds), TERMS) == expected


def test_contenders_are_equal_when_their_intervals_are_within_the_smallest_difference_that_matters() -> None:
    now = estimate([1.0, 1.001, 1.3], [8, 8, 1], sd=0.002)  # +0.001 +- 0.003
    assert now.group == (0, 1)
    assert verdict(now, Terms(4, 0.0041, 8)) is Conclusion.EQUAL
    assert verdict(now, Terms(4, 0.0039, 8)) is None


def test_a_difference_of_many_standard_deviations_is_found_with_few_runs() -> None:
    random = np.random.default_rng(3)
    world = World(random, [1.0, 1.1, 1.2, 1.3])
    played = play(world.judged, world.train, 4)
    assert (played.verdict, played.group) == (Conclusion.SEPARATED, (0,))
    assert played.runs <= 10, "half of five seeds for all"


def test_equal_settings_rarely_get_a_verdict_that_they_differ() -> None:
    """Allowed are 5 %, and a little more since the choice of seeds depends on the results; benchmarks/settle_null.py
    simulates many more sweeps."""
    random = np.random.default_rng(1)
    verdicts = []
    for _ in range(40):
        world = World(random, [1.0, 1.0], documents=30)
        verdicts.append(play(world.judged, world.train, 2, draws=300).verdict)
    assert verdicts.count(Conclusion.SEPARATED) <= 3
