"""Rows are found in any batch that Axolotl builds from them, and each has the same losses as by itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modal_app.held_out.row_losses import About, RowLosses
from runner.config.shipped import shipped_root
from tests.modal_app.steps import ENVIRONMENT, PACKAGE

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("row_rater_script.py")


@pytest.fixture(scope="module")
def told(trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("rated")
    done = subprocess.run(
        [trainer, SCRIPT, shipped_root() / "tiny" / "model", folder], capture_output=True, text=True, check=False,
        env={**ENVIRONMENT, "PYTHONPATH": str(PACKAGE.parent), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    "layout", ["padded", "left", "unmarked", "positions", "packed", "packed, all ones", "fused", "left out"]
)
def test_a_row_has_its_id_and_its_losses_however_it_lies_in_a_batch(told: dict[str, Any], layout: str) -> None:
    rated = told["layouts"][layout]
    assert rated["reason"] is None
    assert rated["equal_ids"]
    assert rated["distinct"] == 6, "equal rows have different ids"
    assert rated["step"] == 3
    assert rated["lengths"] == [5, 3, 3, 3, 7, 2]
    assert rated["turns"] == [2, 1, 1, 1, 1, 0]
    assert rated["tokens"] == [1, 1, 2, 2, 1, 6], "nothing predicts a row's first token"
    assert rated["nll"] == pytest.approx(told["alone"], rel=1e-6)
    packed, padded = [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1]
    batches = {"packed": packed, "packed, all ones": packed, "left out": [-1, 0]}
    found = sorted(rated["batches"])[:2] if layout == "left out" else rated["batches"]
    assert found == batches.get(layout, padded)


def test_a_fused_loss_takes_one_more_pass_for_the_trained_tokens_alone(told: dict[str, Any]) -> None:
    assert told["layouts"]["fused"]["asked"] == [2, 2, 2, 1, 6], "row by row, and none for a row that is not trained"
    assert told["layouts"]["padded"]["asked"] == []


@pytest.mark.parametrize(
    ("layout", "reason"),
    [
        ("left out and sharded", "the evaluation left out held-out rows"),
        ("foreign", "a batch has rows that the prepared dataset does not have"),
        ("biased", "and the mean over its tokens"),
    ],
)
def test_nothing_is_written_where_something_does_not_fit(told: dict[str, Any], layout: str, reason: str) -> None:
    rated = told["layouts"][layout]
    assert reason in rated["reason"]
    assert "nll" not in rated


@pytest.mark.parametrize(
    ("layout", "reason"),
    [("biased and sharded", "and the mean over its tokens"), ("large and sharded", "the memory did not suffice")],
)
def test_a_rank_that_gives_up_still_passes_through_a_sharded_model_as_often_as_the_others(
    told: dict[str, Any], layout: str, reason: str
) -> None:
    rated = told["layouts"][layout]
    assert reason in rated["reason"]
    assert len(rated["asked"]) == 2, "once a batch, though it has given up at the first"


def test_logits_of_16_bits_are_near_enough_to_a_loss_that_was_computed_from_finer_ones(told: dict[str, Any]) -> None:
    assert told["near"] == [True, False]


def test_logits_are_converted_in_chunks_of_any_size(told: dict[str, Any]) -> None:
    one, four, all_at_once = told["chunks"]
    assert one == four == all_at_once


def test_a_file_that_is_damaged_counts_as_none_and_ten_thousand_rows_take_less_than_a_megabyte(tmp_path: Path) -> None:
    random, count = np.random.default_rng(1), 10_000
    ids = random.integers(0, 2**63, count).astype(np.uint64)
    ones, lengths = np.ones(count, np.int32), random.integers(10, 2000, count).astype(np.int32)
    about = About("fingerprint", 60, 1.25, ("inputs/a",), documents_known=False, repeated=((3, 0),))
    rows = RowLosses(
        about, ids, ids, np.zeros(count, np.uint16), lengths, np.arange(count, dtype=np.int32) // 8, ones, lengths,
        random.gamma(2.0, 50.0, count),
    )  # fmt: skip
    path = tmp_path / "losses.npz"
    rows.write(path)
    assert path.stat().st_size < 1e6
    read = RowLosses.read(path)
    assert read is not None
    assert read.about == about
    assert read.nll.tolist() == rows.nll.tolist()
    content = path.read_bytes()
    middle = len(content) // 2
    for damaged in (content[:-1000], b"", content[:middle] + bytes(5000) + content[middle + 5000 :]):
        path.write_bytes(damaged)
        assert RowLosses.read(path) is None
    assert RowLosses.read(tmp_path / "none.npz") is None
