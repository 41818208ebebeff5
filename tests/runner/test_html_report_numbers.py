"""The statistics of a report, its thinning, its clocks and its secrets: the small functions behind a page."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from modal_app.cloud.meter import ContainerRecord
from runner.compare.metrics import Curves, read_curves
from runner.console.numbers import loss
from runner.console.redact import redact
from runner.html_report.curves import moments, paid_until, points_each, rounded, series, thinned
from runner.html_report.effects import bins_of, effect, interaction, pareto, rank_share, spearman
from runner.html_report.gather import TAIL_BYTES, tail
from runner.html_report.words import question_in, sweep_file_of


def record(booted_at: float, seconds: float) -> ContainerRecord:
    seen_at = booted_at + seconds
    return ContainerRecord(
        "ta", "fc", "train/x", booted_at, booted_at + 5, seen_at, True, seconds, (1,), (), 1.0, None, 1.0, None
    )


def test_a_rank_correlation_misses_a_best_value_in_the_middle_and_the_share_sees_it() -> None:
    points = [({"rate": rate}, abs(rate - 3) + 0.01 * turn) for rate in range(1, 6) for turn in range(4)]
    found = effect("rate", points, str)
    assert abs(found["spearman"]) < 0.1
    assert found["share"] > 0.8


def test_the_share_of_a_parameter_that_does_nothing_is_about_nought() -> None:
    chosen = random.Random(1)
    groups = [[chosen.random() for _ in range(10)] for _ in range(8)]
    share = rank_share(groups)
    assert share is not None
    assert share < 0.1, "eight groups hold a tenth of the variance by chance alone: that is taken off"


def test_one_run_per_value_has_no_share() -> None:
    assert rank_share([[1.0], [2.0], [3.0]]) is None


def test_texts_have_no_rank_correlation_and_few_points_none_either() -> None:
    assert effect("scheduler", [({"scheduler": name}, 1.0) for name in "abc"], str)["spearman"] is None
    assert spearman([1, 2], [1, 2]) is None
    assert spearman([1, 2, 3], [3, 2, 1]) == -1


def test_many_numbers_become_ranges_that_hold_all_of_them() -> None:
    values = [10 ** (-5 + index / 10) for index in range(31)]
    bins = bins_of(values, lambda value: f"{value:.1e}")
    assert len(bins.texts) == 5
    assert len(bins.where) == 31
    assert max(bins.where.count(at) for at in range(5)) <= 7


def test_values_of_a_kind_each_keep_the_order_of_numbers() -> None:
    assert bins_of([100, 9, 20], str).texts == ["9", "20", "100"]


def test_the_interaction_is_of_the_two_that_tell_runs_apart_and_of_their_medians() -> None:
    points = [({"a": a, "b": b, "c": c}, a + b * 10 + c * 0.001) for a in (1, 2) for b in (1, 2) for c in (1, 2, 3)]
    pair = interaction([effect(name, points, str) for name in "abc"], points, str)
    assert {pair["x"], pair["y"]} == {"a", "b"}
    assert [cell["runs"] for cell in pair["cells"]] == [3, 3, 3, 3]
    assert pair["cells"][0]["median"] == pytest.approx(11.002)


def test_on_the_front_are_the_points_that_no_other_beats_in_both() -> None:
    assert pareto([1.0, 1.0, 2.0, 3.0], [3.0, 2.0, 2.0, 1.0]) == [1, 3]
    assert pareto([], []) == []


def test_a_number_of_the_page_is_rounded_to_the_same_text_as_on_the_terminal() -> None:
    for value in (1.0381536, 1.0566481, 1.00005, 2.00015, 0.125, 12.34565):
        assert loss(rounded(value)) == loss(value), "with six digits, 1.03815 becomes 1.0381"
    assert rounded(math.nan) is None


def test_thinning_keeps_both_ends_and_the_first_loss_that_was_no_number() -> None:
    assert thinned(range(1000), [777], 10)[0] == 0
    assert thinned(range(1000), [777], 10)[-1] == 999
    assert 777 in thinned(range(1000), [777], 10)
    assert points_each(1) > points_each(400) >= 60


def test_seconds_go_on_where_the_attempt_before_ended(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [
        {"attempt": 1, "step": 1, "time": 100.0, "seconds": 10.0, "loss": 2.0},
        {"attempt": 1, "step": 2, "time": 110.0, "seconds": 20.0, "loss": 1.9},
        {"attempt": 2, "step": 2, "time": 210.0, "seconds": 5.0, "loss": 1.8},
        {"attempt": 2, "step": math.inf, "time": 220.0, "seconds": 6.0, "loss": 1.7},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"attempt": 2, "st')
    assert moments(path) == {1: (10.0, 100.0), 2: (25.0, 210.0)}
    drawn = series(read_curves(path), moments(path), "loss", 100, [], None)
    assert drawn == {"step": [1, 2], "y": [2.0, 1.8], "seconds": [10.0, 25.0]}


def test_a_loss_that_is_not_finite_is_a_gap_and_not_a_zero() -> None:
    drawn = series(Curves({"loss": {1: 1.0, 2: math.nan, 3: math.inf}}), {}, "loss", 100, [], None)
    assert drawn is not None
    assert drawn["y"] == [1.0, None, None]


def test_what_is_paid_at_a_moment_counts_every_container_until_then() -> None:
    rented = [record(0.0, 10.0), record(100.0, 30.0)]
    assert paid_until(rented, 5.0) == pytest.approx(5 / 40)
    assert paid_until(rented, 50.0) == pytest.approx(10 / 40)
    assert paid_until(rented, 1000.0) == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "token hf_" + "a" * 34,
        "WANDB_API_KEY=" + "0" * 40,
        'curl -H "Authorization: Bearer ' + "x" * 20 + '"',
        "comet_api_key: " + "k" * 20,
        "https://me:" + "p" * 12 + "@example.com/x",
        "the value of HF_TOKEN is plain" + "secret-of-mine",
    ],
)
def test_a_secret_in_a_log_or_a_command_is_not_shown(text: str) -> None:
    shown = redact(text, {"HF_TOKEN": "plainsecret-of-mine"})
    for secret in ("a" * 34, "0" * 40, "x" * 20, "k" * 20, "p" * 12, "secret-of-mine"):
        assert secret not in shown
    assert "***" in shown


def test_the_end_of_a_log_begins_with_a_complete_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    secret = f"hf_{'q' * TAIL_BYTES}"
    log.write_text(f"start\n{secret}\nthe end\n", encoding="utf-8")
    assert tail(str(log)) == "the end", "a secret without its beginning is not known as one"
    log.write_text("\r".join(f"{done} %" for done in range(9 * TAIL_BYTES)), encoding="utf-8")
    assert tail(str(log)) == f"{9 * TAIL_BYTES - 1} %"


def test_commits_keys_and_numbers_of_tokens_are_not_secrets() -> None:
    text = "commit 0123456789abcdef0123456789abcdef01234567 tokens=123456789 num_tokens: 4096000000 lora_r=16"
    assert redact(text, {}) == text


def test_the_question_of_a_sweep_file_is_its_own_first_one() -> None:
    text = "# @package _global_\n# Which rank, which learning rate? Six runs.\n#   axosweep -m +sweeps=x\nhydra:\n"
    assert question_in(text) == "Which rank, which learning rate?"
    assert question_in("# @package _global_\n# All ranks.\n# Really?\n") is None
    assert sweep_file_of("axosweep -m +sweeps=tiny_grid gpu=cpu") == "tiny_grid"
    assert sweep_file_of("axosweep -m lora=r8 'unclosed") is None
