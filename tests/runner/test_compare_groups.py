import math

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from runner.compare.groups import Group, groups_over, split_by_held_out
from runner.compare.ranking import Metric, rows_from
from runner.compare.source import RunFacts, facts_of_sweep
from runner.errors import SweepError
from runner.types import Run
from tests.runner.builders import finish, finish_run, open_sweep, run

LOSS = Metric()


def seeded(*ranks: int, seeds: int = 3) -> list[Run]:
    return [run({"lora_r": rank, "lora_alpha": 2 * rank, "seed": seed}) for rank in ranks for seed in range(seeds)]


def facts_of(store: Store, runs: list[Run]) -> list[RunFacts]:
    return facts_of_sweep(store, open_sweep(store, runs).sweep)


def groups(facts: list[RunFacts], *over: str, metric: Metric = LOSS) -> list[Group]:
    return groups_over(over or ("seed",), facts, rows_from(facts, metric), metric)


def test_runs_that_are_equal_but_for_the_seed_have_a_mean_a_spread_and_a_best(store: Store) -> None:
    runs = seeded(8, 16)
    for one, loss in zip(runs, (1.0, 2.0, 3.0, 1.5, 1.5, 1.5), strict=True):
        finish_run(store, one, {9: loss})
    first, second = groups(facts_of(store, runs))
    assert (dict(first.params), first.mean, first.sd, first.n, first.best) == ({"lora_r": 16}, 1.5, 0.0, 3, 1.5)
    assert (dict(second.params), second.mean, second.sd, second.n, second.best) == ({"lora_r": 8}, 2.0, 1.0, 3, 1.0)
    assert (first.is_best, second.is_best) == (True, False)
    assert set(second.runs) == {one.key for one in runs[:3]}


def test_the_mean_is_of_what_has_finished_and_one_value_has_no_spread(store: Store) -> None:
    runs = seeded(8)
    finish_run(store, runs[0], {9: 1.0})
    finish(store, StepKind.TRAIN, runs[1].key, OutcomeStatus.FAILED)
    (group,) = groups(facts_of(store, runs))
    assert (group.n, len(group.runs), group.mean, group.sd) == (1, 3, 1.0, None)


def test_a_group_of_which_a_run_diverged_says_so_and_does_not_win(store: Store) -> None:
    runs = seeded(8, 16)
    for one, loss in zip(runs, (1.0, 1.0, math.nan, 2.0, 2.0, 2.0), strict=True):
        finish_run(store, one, {0: 3.0, 9: loss})
    first, second = groups(facts_of(store, runs))
    assert (first.mean, first.n, first.diverged, first.is_best) == (1.0, 2, 1, False)
    assert (second.mean, second.diverged, second.is_best) == (2.0, 0, True)


def test_the_largest_mean_wins_where_more_is_better(store: Store) -> None:
    runs = seeded(8, 16)
    for one, loss in zip(runs, (1.0, 2.0, 3.0, 1.5, 1.5, 1.5), strict=True):
        finish_run(store, one, {9: loss})
    metric = Metric("eval_loss", maximize=True)
    first = groups(facts_of(store, runs), metric=metric)[0]
    assert (dict(first.params), first.best, first.is_best) == ({"lora_r": 8}, 3.0, True)


def test_seeds_that_drew_other_held_out_rows_have_no_common_mean(store: Store) -> None:
    runs = seeded(8)
    for one, rows in zip(runs, "abc", strict=True):
        finish_run(store, one, {9: 1.0}, eval_fingerprint=rows)
    facts = facts_of(store, runs)
    assert [(one.eval_fingerprint, one.n) for one in groups(facts)] == [("a", 1), ("b", 1), ("c", 1)]
    assert split_by_held_out(["seed"], facts)


def test_two_datasets_with_a_mean_each_are_not_a_split(store: Store) -> None:
    runs = [run({"sequence_len": length, "seed": seed}) for length in (1, 2) for seed in (1, 2)]
    for one, rows in zip(runs, "aabb", strict=True):
        finish_run(store, one, {9: 1.0}, eval_fingerprint=rows)
    facts = facts_of(store, runs)
    assert [one.n for one in groups(facts)] == [2, 2]
    assert not split_by_held_out(["seed"], facts)


def test_a_mean_over_what_is_the_same_in_all_is_refused_with_what_differs(store: Store) -> None:
    runs = [run({"lora_r": rank, "seed": 7}) for rank in (8, 16)]
    with pytest.raises(SweepError, match=r"--over seed: it is 7 in all these runs\. These keys differ: lora_r\."):
        groups(facts_of(store, runs))


def test_a_mean_over_an_unknown_key_is_refused_with_what_was_probably_meant(store: Store) -> None:
    with pytest.raises(SweepError, match=r"--over sed: no run here has that key\. Did you mean seed"):
        groups(facts_of(store, seeded(8)), "sed")


def test_a_parameter_that_another_one_follows_is_averaged_over_together_with_it(store: Store) -> None:
    """lora_alpha = 2r also differs: if it counted, no two runs would differ only in the rank."""
    facts = facts_of(store, seeded(8, 16, seeds=1))
    with pytest.raises(SweepError, match=r"lora_alpha differs with it: --over lora_r lora_alpha\."):
        groups(facts, "lora_r")
    assert len(groups(facts, "lora_r", "lora_alpha")) == 1
