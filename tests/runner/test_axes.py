"""Axes through real Hydra: what moves together, what is left out, and what search=random draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.api.again import compose_again
from runner.composing.axes import IntervalAxis
from runner.composing.search_node import NO_SEARCH
from runner.errors import SweepError


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "store"))
    return tmp_path


def _values(requested: Any, *keys: str) -> list[tuple[Any, ...]]:
    return [tuple(experiment.axolotl[key] for key in keys) for experiment in requested.experiments]


RATES = "learning_rate=tag(log,interval(1e-5,1e-3))"


def test_zipped_axes_move_together_and_the_others_are_combined_with_them(ask: Callable[..., Any]) -> None:
    words = ("lora_r=8,16", "learning_rate=1e-3,3e-3", "axolotl.lora_alpha=32,16", "--zip", "lora_r,lora_alpha")
    expected = [(8, 1e-3, 32), (8, 3e-3, 32), (16, 1e-3, 16), (16, 3e-3, 16)]
    assert _values(ask("-m", *words), "lora_r", "learning_rate", "lora_alpha") == expected


def test_what_a_point_is_left_out_by_is_compared_by_value(ask: Callable[..., Any]) -> None:
    words = ("lora=r8,r16", "learning_rate=8e-4,1e-3", "seed=1", "--exclude", "lora=r16 learning_rate=0.00080 seed=1.0")
    requested = ask("-m", *words, "--exclude=axolotl.learning_rate=1e-3 lora=r8")
    assert _values(requested, "lora_r", "learning_rate") == [(8, 8e-4), (16, 1e-3)]
    left_out = [(one.overrides, one.why) for one in requested.request.left_out]
    assert left_out == [
        (("lora=r8", "learning_rate=0.001", "seed=1"), "--exclude 'axolotl.learning_rate=1e-3 lora=r8'"),
        (("lora=r16", "learning_rate=0.0008", "seed=1"), "--exclude 'lora=r16 learning_rate=0.00080 seed=1.0'"),
    ]


def test_an_exclude_may_name_several_values_and_intervals(ask: Callable[..., Any]) -> None:
    words = ("lora_r=8,16,32", "learning_rate=1e-4,1e-3", "--exclude", "lora_r=8,16 learning_rate=interval(1e-3,1)")
    assert _values(ask("-m", *words), "lora_r", "learning_rate") == [(8, 1e-4), (16, 1e-4), (32, 1e-4), (32, 1e-3)]


SAVED = """\
# @package _global_
hydra:
  sweeper:
    params:
      lora_r: [8, 16]
      lora_alpha: [16, 32]
      learning_rate: [1e-3, 3e-3]
    zip: [[lora_r, lora_alpha]]
    exclude: [lora_r=16 learning_rate=3e-3]
axolotl:
  max_steps: 5
"""


def test_a_sweep_file_zips_and_excludes_and_its_runs_can_be_requested_one_by_one(
    ask: Callable[..., Any], elsewhere: Path
) -> None:
    (elsewhere / "sweeps").mkdir()
    (elsewhere / "sweeps" / "saved.yaml").write_text(SAVED)
    (elsewhere / "conf").mkdir()
    requested = ask("-m", "+sweeps=saved")
    assert _values(requested, "lora_r", "lora_alpha", "learning_rate") == [(8, 16, 1e-3), (8, 16, 3e-3), (16, 32, 1e-3)]
    for experiment in requested.experiments:
        assert ask("-m", *experiment.overrides).experiments == [experiment]
    narrowed = ask("-m", "+sweeps=saved", "learning_rate=1e-3")
    assert len(narrowed.experiments) == 2, "its exclude may leave out nothing, since the rate has been replaced"
    assert len(ask("-m", "+sweeps=saved", "hydra.sweeper.zip=[]").experiments) == 6
    without = [f"~hydra.sweeper.params.{key}" for key in ("lora_r", "lora_alpha")]
    assert len(ask("-m", "+sweeps=saved", *without).experiments) == 2


@pytest.mark.parametrize("key", ["budget: 5", "search: random", "search.runs: [2, 3]"])
def test_a_sweep_file_has_no_axis_for_what_applies_to_all_runs(
    ask: Callable[..., Any], elsewhere: Path, key: str
) -> None:
    """As an axis of one value, a budget would be lost without a message."""
    (elsewhere / "sweeps").mkdir()
    (elsewhere / "conf").mkdir()
    (elsewhere / "sweeps" / "lost.yaml").write_text(SAVED.replace("    params:", f"    params:\n      {key}"))
    with pytest.raises(SweepError, match=f"{key.partition(':')[0]} applies to all runs .* not an axis"):
        ask("-m", "+sweeps=lost")


def test_a_run_is_composed_again_without_an_axis_that_was_left_out(ask: Callable[..., Any], elsewhere: Path) -> None:
    (elsewhere / "sweeps").mkdir()
    (elsewhere / "conf").mkdir()
    (elsewhere / "sweeps" / "saved.yaml").write_text(SAVED)
    left_out = [f"~hydra.sweeper.params.{key}" for key in ("lora_r", "lora_alpha")]
    requested = ask("-m", "+sweeps=saved", *left_out).experiments
    assert len(requested) == 2
    for one in requested:
        again, _ = compose_again(one.overrides, Store(elsewhere / "store"), "saved")
        assert again == [one]


def test_a_sweep_file_is_no_axis_of_another_one(ask: Callable[..., Any], elsewhere: Path) -> None:
    """Its axes would not count."""
    (elsewhere / "sweeps").mkdir()
    (elsewhere / "conf").mkdir()
    (elsewhere / "sweeps" / "both.yaml").write_text(
        SAVED.replace("    params:", "    params:\n      sweeps: tiny_grid")
    )
    with pytest.raises(SweepError, match="sweeps is not an axis"):
        ask("-m", "+sweeps=both")


def test_an_unknown_key_of_the_sweeper_in_a_file_is_named(ask: Callable[..., Any], elsewhere: Path) -> None:
    (elsewhere / "sweeps").mkdir()
    (elsewhere / "conf").mkdir()
    (elsewhere / "sweeps" / "typo.yaml").write_text(SAVED.replace("    zip:", "    zips:"))
    with pytest.raises(SweepError, match="Key 'zips' not in"):
        ask("-m", "+sweeps=typo")


def test_a_sweep_file_may_draw_its_points_and_each_can_be_requested_alone(
    ask: Callable[..., Any], elsewhere: Path
) -> None:
    (elsewhere / "sweeps").mkdir()
    (elsewhere / "conf").mkdir()
    search = SAVED.partition("    exclude")[0] + "defaults: [override /search: random]\nsearch: {runs: 3}\n"
    (elsewhere / "sweeps" / "drawn.yaml").write_text(search)
    (elsewhere / "sweeps" / "further.yaml").write_text(search + "axolotl:\n  max_steps: 5\n")
    for name, shown in (("drawn", False), ("further", True)):
        requested = ask("-m", f"+sweeps={name}")
        assert len(requested.experiments) == 3
        for experiment in requested.experiments:
            assert (f"+sweeps={name}" in experiment.overrides) == shown, "only what sets a key of the run describes it"
            assert ask("-m", *experiment.overrides, *NO_SEARCH).experiments == [experiment]


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("lora_r=8,16 lora_alpha=16,32,64 --zip lora_r,lora_alpha", "lora_r has 2, lora_alpha has 3"),
        ("lora_r=8,16 --zip lora_r,lora_alpha", "lora_alpha is not an axis of this sweep.*The axes: lora_r"),
        ("lora_r=8,16 lora_alpha=32 --zip lora_r,lora_alpha", "lora_alpha is not an axis"),
        ("lora_r=8,16 --zip lora_r", "at least two"),
        ("lora_r=8,16 --zip", "--zip takes a value: --zip lora_r,lora_alpha"),
        ("lora_r=1,2 seed=1,2 data.seed=1,2 --zip lora_r,seed --zip seed,data.seed", "seed is named twice"),
        ("lora_r=8,16 hydra.sweeper.zip=[lora_r,seed]", "expected lists of axes, as in"),
        ("lora_r=8,16 hydra.sweeper.exclude=[[lora_r]]", "expected a list of texts"),
        ("lora_r=8,16 --exclude lora_r=32", "matches no value of lora_r. Its values: 8, 16"),
        ("lora_r=8,16 --exclude lora_rr=8", "lora_rr is not an axis of this sweep. Did you mean lora_r?"),
        ("lora_r=8,16 --exclude lora_r", "lora_r is not KEY=VALUE"),
        ("lora_r=8,16 --exclude lora_r=8,16", "no point is left"),
        ("lora_r=8,16 --exclude lora_r=true", "matches no value"),
        ("lora=r8,r16 --exclude lora=16", "Its values: r8, r16"),
        ("lora_r=8,16 seed=1,2 --zip lora_r,seed --exclude lora_r=8_seed=2", "nothing would be left out"),
        ("learning_rate=interval(1e-5,1e-3)", "search=random search.runs=20"),
    ],
)
def test_rules_that_mean_nothing_are_refused_with_the_way_out(ask: Callable[..., Any], line: str, way_out: str) -> None:
    with pytest.raises(SweepError, match=way_out):
        ask("-m", *(word.replace("_seed", " seed") for word in line.split()))


def test_random_points_are_new_ones_from_the_intervals_and_lists(ask: Callable[..., Any]) -> None:
    words = (RATES, "lora_r=int(tag(log,interval(4,64)))", "lora_dropout=interval(0,0.1)", "seed=range(1,4)")
    requested = ask("-m", *words, "search=random", "search.runs=16")
    values = _values(requested, "learning_rate", "lora_r", "lora_dropout", "seed")
    rates, ranks, dropouts, seeds = zip(*values, strict=True)
    assert len(set(values)) == 16
    assert all(1e-5 <= one < 1e-3 and float(f"{one:.3g}") == one for one in rates), "three digits are enough"
    assert sorted(int(math.log10(one / 1e-5) * 8) for one in rates) == list(range(16)), "even on the log scale"
    assert all(isinstance(one, int) and 4 <= one <= 64 for one in ranks)
    assert sum(one <= 16 for one in ranks) in (8, 9), "half of them in the lower half of the log scale"
    assert all(0 <= one < 0.1 and round(one, 4) == one for one in dropouts)
    assert all(seeds.count(one) in (5, 6) for one in (1, 2, 3))


def test_more_runs_are_the_same_ones_and_further_ones_whatever_the_order_of_the_axes(ask: Callable[..., Any]) -> None:
    def drawn(*words: str) -> list[tuple[Any, ...]]:
        return _values(ask("-m", "search=random", *words), "learning_rate", "lora_r")

    few = drawn(RATES, "lora=r8,r16", "search.runs=5")
    assert drawn("lora=r8,r16", RATES, "search.runs=10")[:5] == few
    ranks = ("lora_r=range(4,20)", "lora_r=shuffle(range(4,20))")
    assert drawn(RATES, ranks[0], "search.runs=5") == drawn(RATES, ranks[1], "search.runs=5")
    assert drawn(RATES, "lora=r8,r16", "search.runs=5", "search.seed=1") != few


def test_a_point_is_drawn_once_and_the_search_ends_with_the_last_one(
    ask: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("lora_r=8,16,32", "lora_alpha=16,32,64", "seed=1,2", "--zip", "lora_r,lora_alpha")
    requested = ask("-m", *words, "--exclude", "seed=2 lora_r=32", "search=random", "search.runs=40")
    expected = {(8, 16, 1), (16, 32, 1), (32, 64, 1), (8, 16, 2), (16, 32, 2)}
    values = _values(requested, "lora_r", "lora_alpha", "seed")
    assert (set(values), len(values)) == (expected, 5)
    assert [one.why for one in requested.request.left_out] == ["--exclude 'seed=2 lora_r=32'"]
    assert "search.runs=40, but the axes have only 5 different points" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("-m search=randm lora_r=8,16", "random"),
        ("-m search.method=randm lora_r=8,16", "Did you mean random"),
        ("-m search=random lora_r=8,16", "search.runs=20"),
        ("-m search.runs=5 lora_r=8,16", "Leave search.runs out"),
        ("-m search=coordinate search.runs=5 lora_r=8,16", "Leave search.runs out"),
        ("-m search=random search.runs=0 lora_r=8,16", "at least 1"),
        ("-m search=random search.runs=2.5 lora_r=8,16", "whole number"),
        ("-m search=random search.runs=5 search.seed=x lora_r=8,16", "search.seed=x: a whole number"),
        ("-m search.rungs=[] lora_r=8,16", "Leave it out"),
        ("-m search.rungs=0.5 lora_r=8,16", "search.rungs=\\[0.2,0.6\\]"),
        ("-m search.rungs=[0.6,0.2] lora_r=8,16", "does not ascend"),
        ("-m search.rungs=[0.2,1] lora_r=8,16", "1 is not between 0 and 1"),
        ("-m search.rungs=[0.2,a] lora_r=8,16", "a is not between 0 and 1"),
        ("-m search.rungs=[0.2] search.eta=1 lora_r=8,16", "search.eta=1: a whole number of at least 2"),
        ("-m search.rungs=[0.2] search.audit=5 lora_r=8,16", "true or false"),
        ("-m search.rungs=[0.2] search.metric=loss lora_r=8,16", "compares runs by eval_loss"),
        ("-m search.maximize=true lora_r=8,16", "is for search=coordinate and search=tpe"),
        ("-m search=coordinate search.rungs=[0.2] lora_r=8,16", "for search=grid and search=random"),
        ("-m search=grid,random lora_r=8,16", "cannot be swept.$"),
        ("-m search.rungs=0.2,0.6 lora_r=8,16", r"cannot be swept. For a list, write 'search.rungs=\[0.2,0.6\]'"),
        ("-m search=tpe,random search.runs=3 lora_r=8,16", "search=tpe,random: search applies to all runs"),
        ("-m search=random search.runs=3,4 lora_r=8,16", "search.runs=3,4: search.runs applies to all runs"),
        ("-m search=tpe search.runs=2 lora_r=8,16 seed=1,2,3", "each has 3 runs, one for each seed"),
        ("-m search=coordinate lora_r=8,16 seed=1,2 data.seed=1,2 --zip seed,data.seed", "Give data.seed one value"),
        ("-m search=tpe search.runs=2 lora_r=8,16 seed=int(interval(1,9))", "Write a list: seed=1,2,3"),
        ("-m search=random search.runs=5 lora_r=8", "needs axes"),
        ("search=random search.runs=5 lora_r=8", "needs -m and axes"),
        ("search.rungs=[0.2] lora_r=8", "needs -m and axes"),
        ("-m search=random search.runs=5 learning_rate=interval(2,1)", "has to be less"),
        ("-m search=random search.runs=5 learning_rate=interval(1,inf)", "finite"),
        ("-m search=random search.runs=5 learning_rate=tag(log,interval(0,1))", "more than 0"),
        ("-m search=random search.runs=5 learning_rate=tag(lin,interval(0,1))", "only tag is log"),
        ("-m search=random search.runs=5 lora_r=interval(4,64)", "'lora_r=int\\(interval\\(4,64\\)\\)'"),
        ("-m search=random search.runs=5 seed=1,2 adam_beta1=interval(0,1) --zip seed,adam_beta1", "Write a list"),
        ("-m hydra/launcher=basic search.rungs=[0.2] lora_r=8,16", "axosweep launches them"),
        ("-m hydra/sweeper=basic search=random search.runs=5 lora_r=8,16", "search.method=random search.runs=5: that"),
        ("-m hydra/sweeper=basic learning_rate=interval(0,1)", "^BasicSweeper does not support"),
        ("-m hydra/sweeper=basic --zip lora_r,seed lora_r=8,16 seed=1,2", "--zip lora_r,seed: that is for axosweep"),
        ("-m hydra/sweeper=basic hydra/launcher=basic --exclude seed=1 seed=1,2", "--exclude 'seed=1': that is for"),
    ],
)
def test_a_search_that_means_nothing_is_refused_with_the_way_out(
    ask: Callable[..., Any], line: str, way_out: str
) -> None:
    with pytest.raises(SweepError, match=way_out):
        ask(*line.split())


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        (IntervalAxis("a", "a", 1000.0, 100000.0), [1000.0, 50500.0, 99990.0]),
        (IntervalAxis("a", "a", -0.05, 0.05), [-0.05, 0.0, 0.0499]),
        (IntervalAxis("a", "a", 1.2345, 1.2346), [1.2345, 1.23455, 1.2345999]),
        (IntervalAxis("a", "a", 2e-5, 3e-5, log=True), [2e-5, 2.449e-05, 2.999e-05]),
        (IntervalAxis("a", "a", 1e-6, 1.0, log=True), [1e-6, 1e-3, 0.999]),
        (IntervalAxis("a", "a", 1.2345678e-5, 1e-3, log=True), [1.2345678e-5, 0.000111, 0.000999]),
        (IntervalAxis("a", "a", 1, 4, integer=True), [1, 3, 4]),
        (IntervalAxis("a", "a", -6, -1, integer=True), [-6, -3, -1]),
        (IntervalAxis("a", "a", -4, 0, integer=True), [-4, -2, 0]),
    ],
)
def test_an_interval_has_values_of_few_digits_from_one_end_to_just_before_the_other(
    axis: IntervalAxis, values: Sequence[float]
) -> None:
    found = [axis.at(Decimal(part)) for part in ("0", "0.5", "0.99999999")]
    assert found == pytest.approx(values, rel=1e-12)
    assert [axis.override(one) for one in found] == [f"a={one!r}" for one in found], "rounding again changes nothing"
