"""Seconds of a run: from records of its shape or of similar runs, or from published speeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner.cost.types import Length, PastRuns, Prediction, Range, Shape
from runner.estimate.predict import predict
from runner.estimate.seeds import matmul_weights, seed_speed
from runner.types import ModelFacts

SHAPE = Shape("tiny", "lora", 16, "cpu", 1, 16, 128, False, False, False, "none", "local")
LENGTH = Length(60, 1, Range.exactly(1000.0), 3, 6, 5000.0, 2, "prepared rows")
PHASES = {"import": 1.0, "load": 2.0, "first": 1.0, "train": 59 * 0.5, "eval": 3 * 6 * 0.1, "save": 2 * 0.5}
PAST = PastRuns(SHAPE, LENGTH, 1 + 2 + 1 + 59 * 0.5 + 1.8 + 1.0, PHASES, cpu={"first": 0.5, "train": 59 * 0.25})


def facts(name: str = "model", parameters: int = 8_000_000_000, **changes: Any) -> ModelFacts:
    values: dict[str, Any] = {"base_model": name, "parameters": parameters, "layers": 32, "hidden": 4096, "heads": 32,
                              "kv_heads": 8, "head_dim": 128, "ffn": 14336, "vocabulary": 128256, "tied": False,
                              "context": 8192, "source": "here"}  # fmt: skip
    return ModelFacts(**values | changes)


def found(shape: Shape, length: Length, past: list[PastRuns], known: dict[str, ModelFacts] | None = None) -> Prediction:
    prediction = predict(shape, length, past, known or {})
    assert isinstance(prediction, Prediction), prediction
    return prediction


def test_another_length_of_the_same_shape_takes_its_own_steps_evaluations_and_saves() -> None:
    longer = replace(LENGTH, steps=180, evals=5, eval_batches=3, saves=4)
    prediction = found(SHAPE, longer, [PAST])
    assert prediction.seconds.likely == pytest.approx(4.0 + 179 * 0.5 + 5 * 3 * 0.1 + 4 * 0.5)
    assert prediction.cpu_s == pytest.approx(0.5 + 179 * 0.25)
    assert prediction.basis == "1 record"


def test_accumulation_and_longer_rows_are_more_tokens_a_step() -> None:
    step = replace(LENGTH, micro_steps=2, micro_tokens=Range.exactly(1500.0))
    assert found(SHAPE, step, [PAST]).seconds.likely == pytest.approx(4.0 + 59 * 0.5 * 3 + 1.8 + 1.0)


def test_more_records_narrow_the_range_and_spread_ones_widen_it() -> None:
    one, six = found(SHAPE, LENGTH, [PAST]), found(SHAPE, LENGTH, [replace(PAST, cpu={})] * 6)
    assert one.seconds.high > six.seconds.high > six.seconds.likely
    slow = replace(PAST, seconds=PAST.seconds * 2, phases={**PHASES, "train": PHASES["train"] + PAST.seconds})
    spread = found(SHAPE, LENGTH, [replace(PAST, cpu={}), replace(PAST, cpu={}), slow])
    assert spread.seconds.high >= slow.seconds


def test_a_cpu_may_have_the_machine_for_itself_this_time() -> None:
    assert found(SHAPE, LENGTH, [PAST]).seconds.low == pytest.approx(0.5 + 59 * 0.25)


def test_another_batch_of_the_same_model_keeps_the_tokens_a_second_and_says_so() -> None:
    other = replace(SHAPE, micro_batch=8)
    half = replace(LENGTH, micro_tokens=Range.exactly(500.0), evals=0)
    prediction = found(other, half, [PAST])
    assert prediction.seconds.likely == pytest.approx(4.0 + 59 * 0.25 + 1.0)
    assert prediction.basis == "1 record of another shape"
    assert prediction.seconds.high == pytest.approx(1.35 * prediction.seconds.likely)


def test_a_cpu_without_a_record_of_its_model_and_place_is_unknown() -> None:
    for other in (replace(SHAPE, place="modal"), replace(SHAPE, base_model="other"), replace(SHAPE, adapter="none")):
        cpu = "Modal's CPU" if other.place == "modal" else "this CPU"
        assert f"no similar run was trained on {cpu} yet" in str(predict(other, LENGTH, [PAST], {}))


def test_a_faster_card_and_a_smaller_model_shorten_the_steps() -> None:
    there = replace(SHAPE, gpu="a100_80gb", base_model="model")
    past = replace(PAST, shape=there)
    on_h100 = found(replace(there, gpu="h100"), replace(LENGTH, evals=0), [past])
    assert on_h100.seconds.likely == pytest.approx(4.0 + 59 * 0.5 * 312 / 989 + 1.0)
    assert "other models or cards" in on_h100.basis
    known = {"model": facts(), "half": facts("half", 4_000_000_000 + 128256 * 4096 // 2)}
    ratio = matmul_weights(known["half"]) / matmul_weights(known["model"])
    smaller = found(replace(there, base_model="half"), replace(LENGTH, evals=0), [past], known)
    assert smaller.seconds.likely == pytest.approx(4.0 + 59 * 0.5 * ratio + 1.0)


def test_checkpointing_computes_the_forward_pass_again() -> None:
    there = replace(SHAPE, gpu="h100")
    again = found(replace(there, checkpointing=True), replace(LENGTH, evals=0), [replace(PAST, shape=there)])
    assert again.seconds.likely == pytest.approx(4.0 + 59 * 0.5 * 6 / 4 + 1.0)


QWEN_7B = facts("qwen", 7_721_324_544, kv_heads=32, ffn=11008, vocabulary=151936)
LLAMA_3B = facts("llama", 3_212_749_824, layers=28, hidden=3072, ffn=8192, tied=True)


@pytest.mark.parametrize(
    ("model", "micro", "length", "bits", "published", "off"),
    [
        # The seed itself: Qwen's README, 8 rows an iteration.
        (QWEN_7B, 1, 256, 16, 8 * 256 / 1.2, 0.1),
        (QWEN_7B, 1, 1024, 16, 8 * 1024 / 2.8, 0.1),
        (QWEN_7B, 1, 8192, 16, 8 * 8192 / 21.3, 0.1),
        (QWEN_7B, 1, 512, 4, 8 * 512 / 3.0, 0.1),
        (QWEN_7B, 1, 4096, 4, 8 * 4096 / 11.6, 0.1),
        # Transferred to another model: torchtune's README.
        (LLAMA_3B, 2, 4096, 16, 8210, 0.5),
        (LLAMA_3B, 2, 4096, 4, 8035, 0.5),
    ],
)
def test_a_seed_gives_back_what_it_is_from_and_comes_near_to_others(
    model: ModelFacts, micro: int, length: int, bits: int, published: float, off: float
) -> None:
    shape = Shape(model.base_model, "lora", bits, "a100_80gb", 1, micro, length, True, True, True, "none", "modal")
    speed = seed_speed(shape, model, float(micro * length))
    assert not isinstance(speed, str)
    assert speed[0] == pytest.approx(published, rel=off)


def test_a_seed_says_whose_it_is_and_is_good_to_a_half() -> None:
    shape = replace(SHAPE, base_model="model", gpu="h100", place="modal")
    prediction = found(shape, replace(LENGTH, steps=100_000), [], {"model": facts()})
    assert prediction.basis == "a published speed (QwenLM/Qwen's README)"
    assert prediction.seconds.high == pytest.approx(1.5 * prediction.seconds.likely, rel=0.02)
    assert prediction.seconds.low == pytest.approx(0.5 * prediction.seconds.likely, rel=0.02)
    assert prediction.boot.high > 0
    assert "shape of this base_model is unknown" in str(predict(shape, LENGTH, [], {}))


def test_only_the_experts_that_a_token_passes_through_count() -> None:
    dense, mixture = facts(), facts(experts=8, active_experts=2)
    assert matmul_weights(mixture) == matmul_weights(dense) - 6 * 32 * 3 * 4096 * 14336


def test_embeddings_are_looked_up_unless_they_are_the_head_too() -> None:
    assert matmul_weights(facts(tied=True)) - matmul_weights(facts()) == 128256 * 4096
