"""How many steps, evaluations and saves a run has, by Axolotl's own rules."""

from __future__ import annotations

from typing import Any

import pytest

from runner.cost.length import length_of, shape_of
from runner.cost.types import Length, Rows
from runner.preflight.data import steps_of
from runner.types import DatasetSize

TINY: dict[str, Any] = {"micro_batch_size": 16, "gradient_accumulation_steps": 1, "num_epochs": 2, "sequence_len": 128}
ROWS = Rows(1641, 87, 60.0, 90, "prepared rows")


def length(rows: Rows | None = ROWS, ranks: int = 1, **changes: Any) -> Length:
    found = length_of({**TINY, **changes}, ranks, rows)
    assert isinstance(found, Length), found
    return found


@pytest.mark.parametrize(
    ("changes", "ranks", "steps"),
    [
        ({}, 1, 206),  # as many as Axolotl accepts
        ({"max_steps": 60}, 1, 60),
        ({"gradient_accumulation_steps": 4}, 1, 52),
        ({}, 2, 103),
        ({"num_epochs": 0.5}, 1, 52),
        ({"batch_size": 32}, 1, 103),
        ({"sample_packing": True, "micro_batch_size": 1}, 1, 1618),
    ],
)
def test_steps_are_rows_and_epochs_over_the_batch(changes: dict[str, Any], ranks: int, steps: int) -> None:
    assert length(ranks=ranks, **changes).steps == steps


@pytest.mark.parametrize("epochs", [1, 3, 0.5, 1.5])
@pytest.mark.parametrize("rows", [90, 101, 187, 200])
def test_preflight_and_the_price_count_the_same_steps(rows: int, epochs: float) -> None:
    """Axolotl rounds once for all epochs: 92.5 batches an epoch are 278 in three of them, and not 279."""
    config = {**TINY, "num_epochs": epochs, "val_set_size": 0.05, "datasets": [{"path": "o/rows", "type": "alpaca"}]}
    steps = steps_of(config, 1, {"o/rows": DatasetSize(rows, 50.0)})
    assert steps is not None
    assert steps.total == length(Rows(steps.rows, rows - steps.rows, 50.0, 90, "rows"), **config).steps


@pytest.mark.parametrize(
    ("changes", "evals", "saves"),
    [
        ({"max_steps": 100}, 2, 3),  # without an interval: the first and the last state; a checkpoint an epoch
        ({"max_steps": 100, "eval_steps": 30, "save_steps": 30}, 5, 5),
        ({"max_steps": 100, "eval_steps": 50, "save_steps": 50}, 3, 3),
        ({"max_steps": 100, "evals_per_epoch": 4, "saves_per_epoch": 4}, 9, 9),
        ({"max_steps": 100, "eval_strategy": "no", "save_strategy": "no"}, 2, 1),
        ({"max_steps": 100, "eval_steps": 0.25}, 5, 3),
    ],
)
def test_evaluations_and_saves_come_by_their_cadences(changes: dict[str, Any], evals: int, saves: int) -> None:
    found = length(**changes)
    assert (found.evals, found.saves) == (evals, saves)


def test_a_run_without_held_out_rows_is_not_evaluated() -> None:
    assert length(Rows(1000, 0, 60.0, 90, "prepared rows")).evals == 0


def test_evaluation_batches_are_shared_by_the_ranks() -> None:
    assert length().eval_batches == 6
    assert length(ranks=2).eval_batches == 3
    assert length(eval_batch_size=87).eval_batches == 1


def test_padded_rows_are_as_long_as_the_sequence_and_others_as_the_longest_of_their_batch() -> None:
    assert length(pad_to_sequence_len=True).micro_tokens.likely == 16 * 128
    found = length().micro_tokens
    assert 16 * 60 <= found.low < found.likely <= found.high == 16 * 90


@pytest.mark.parametrize("key", ["context_parallel_size", "tensor_parallel_size"])
def test_cards_that_share_a_row_compute_a_part_of_it_each(key: str) -> None:
    padded: dict[str, Any] = {"pad_to_sequence_len": True}
    alone, shared = length(**padded), length(**{**padded, key: 4})
    assert shared.steps == alone.steps
    assert shared.micro_tokens.likely == alone.micro_tokens.likely / 4
    assert shared.eval_tokens == alone.eval_tokens / 4


def test_unknown_rows_leave_the_length_unknown_unless_max_steps_says_it() -> None:
    assert "max_steps is not set" in str(length_of(TINY, 1, None))
    found = length(None, max_steps=10)
    assert (found.steps, found.evals, found.source) == (10, 0, "set by max_steps; rows unknown, so without evaluations")


def test_packed_rows_of_unknown_length_leave_it_unknown() -> None:
    assert "it packs rows" in str(length_of({**TINY, "sample_packing": True}, 1, Rows(10, 0, None, None, "")))


def test_a_shape_tells_apart_what_decides_the_speed() -> None:
    plain = {**TINY, "base_model": "m", "adapter": "lora"}
    shapes = {
        shape_of({**plain, **changes}, "h100", 1, "modal")
        for changes in (
            {},
            {"adapter": "qlora", "load_in_4bit": True},
            {"peft_use_dora": True},
            {"gradient_checkpointing": True},
            {"sample_packing": True},
            {"deepspeed": {"zero_optimization": {"stage": 3}}},
            {"fsdp_config": {"reshard": True}},
            {"micro_batch_size": 8},
            {"learning_rate": 1e-3, "lora_r": 64, "seed": 7},  # the first one
        )
    }
    assert len(shapes) == 8


def test_an_evaluation_without_logits_takes_one_more_pass_for_the_losses_of_rows() -> None:
    """With Liger's fused loss, an evaluation still computes logits."""
    cut = ["axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"]
    liger: dict[str, Any] = {
        "plugins": ["axolotl.integrations.liger.LigerPlugin"],
        "liger_fused_linear_cross_entropy": True,
    }
    assert length(plugins=cut).eval_tokens == 2 * length().eval_tokens
    assert (
        length(**liger).eval_tokens == length(plugins=cut, cut_cross_entropy=False).eval_tokens == length().eval_tokens
    )
