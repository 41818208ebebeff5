from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.config.gpus import GPUS
from runner.memory.estimate import Estimate, Parts, Verdict, estimate, verdict_of
from runner.memory.words import gib, in_words
from tests.runner.memory_points import CUT, GIB, LLAMA_3B, LLAMA_8B, LLAMA_70B, QWEN_14B

A100, H100, L4 = GPUS["a100_80gb"], GPUS["h100"], GPUS["l4"]
MODELS = st.sampled_from([LLAMA_3B, LLAMA_8B, QWEN_14B, LLAMA_70B])
COUNTS = st.sampled_from([2, 4, 8])
LIGER = "axolotl.integrations.liger.LigerPlugin"

FULL: dict[str, Any] = {
    "sequence_len": 2048,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "optimizer": "adamw_torch_fused",
    "bf16": "auto",
    "gradient_checkpointing": True,
    "attn_implementation": "flash_attention_2",
    "val_set_size": 0.05,
    "evals_per_epoch": 4,
}
LORA = {**FULL, "adapter": "lora", "lora_r": 16, "lora_dropout": 0.05, "lora_target_linear": True}
METHODS = st.sampled_from(
    [FULL, LORA, {**LORA, "load_in_8bit": True}, {**LORA, "adapter": "qlora", "load_in_4bit": True}]
)


def zero(stage: int) -> dict[str, Any]:
    return {"deepspeed": {"zero_optimization": {"stage": stage, "reduce_bucket_size": "auto"}}}


FSDP = {"fsdp_version": 2, "fsdp_config": {"reshard_after_forward": True}}


def of(config: dict[str, Any], facts: Any = LLAMA_8B, gpu: Any = H100, count: int = 1, **rest: Any) -> Estimate:
    return estimate(config, facts, gpu, count, **rest)


def parts_of(config: dict[str, Any], facts: Any = LLAMA_8B, count: int = 1, **rest: Any) -> Parts:
    found = of(config, facts, count=count, **rest).parts
    assert found is not None
    return found


# What grows with the request


@given(MODELS, METHODS, st.integers(1, 16), st.booleans())
def test_a_larger_batch_never_needs_less(facts: Any, method: Any, rows: int, checkpointing: bool) -> None:
    config = {**method, "gradient_checkpointing": checkpointing}
    smaller, larger = ({**config, "micro_batch_size": size} for size in (rows, rows + 1))
    assert parts_of(smaller, facts).total <= parts_of(larger, facts).total


@given(MODELS, METHODS, st.integers(64, 8192), st.sampled_from(["flash_attention_2", "sdpa", "eager"]))
def test_longer_sequences_never_need_less(facts: Any, method: Any, length: int, attention: str) -> None:
    config = {**method, "attn_implementation": attention}
    shorter, longer = ({**config, "sequence_len": size} for size in (length, 2 * length))
    assert parts_of(shorter, facts).total <= parts_of(longer, facts).total


@given(MODELS, st.integers(1, 256), st.booleans())
def test_a_higher_rank_needs_more(facts: Any, rank: int, dora: bool) -> None:
    config = {**LORA, "peft_use_dora": dora}
    lower, higher = ({**config, "lora_r": one} for one in (rank, 2 * rank))
    assert parts_of(lower, facts).total < parts_of(higher, facts).total


@given(MODELS)
def test_fewer_bits_hold_fewer_bytes_of_weights(facts: Any) -> None:
    four, eight, sixteen = (
        parts_of({**LORA, **bits}, facts).weights
        for bits in ({"adapter": "qlora", "load_in_4bit": True}, {"load_in_8bit": True}, {})
    )
    assert four < eight < sixteen


@given(MODELS, st.sampled_from([4, 8]), st.booleans())
def test_each_stage_of_zero_needs_no_more_than_the_one_before(facts: Any, count: int, accumulates: bool) -> None:
    """For full fine-tunes from four cards on. On two, DeepSpeed's fp32 copy of the weights costs as much as sharing its
    state saves. An adapter has too little to share, compared with DeepSpeed's buffers.
    """
    config = {**FULL, "gradient_accumulation_steps": 2 if accumulates else 1, "micro_batch_size": 1}
    alone = parts_of(config, facts, count).total
    first, second, third = (parts_of({**config, **zero(stage)}, facts, count).total for stage in (1, 2, 3))
    assert third <= second <= first <= alone


@given(MODELS, METHODS, st.sampled_from([{}, zero(1), zero(2), zero(3), FSDP]), COUNTS)
def test_more_gpus_never_need_more_of_each(facts: Any, method: Any, sharing: Any, count: int) -> None:
    config = {**method, **sharing}
    fewer, more = of(config, facts, count=count), of(config, facts, count=2 * count)
    if fewer.parts is None or more.parts is None:
        assert method.get("load_in_8bit")
    else:
        assert more.parts.total <= fewer.parts.total


@given(MODELS, METHODS)
def test_checkpointing_offloading_and_a_leaner_loss_never_need_more(facts: Any, method: Any) -> None:
    without = {**method, "gradient_checkpointing": False}
    assert parts_of(method, facts).total <= parts_of(without, facts).total
    assert parts_of({**method, "activation_offloading": "legacy"}, facts).total <= parts_of(method, facts).total
    plain, chunked, cut = (
        parts_of({**method, **loss}, facts).total for loss in ({}, {"chunked_cross_entropy": True}, {"plugins": [CUT]})
    )
    assert cut <= chunked <= plain


@given(MODELS, METHODS, COUNTS)
def test_the_parts_are_what_the_total_is_made_of(facts: Any, method: Any, count: int) -> None:
    parts = parts_of(method, facts, count)
    assert parts.total == sum(size for _, size in parts.largest_first())
    assert min(size for _, size in parts.largest_first()) > 0


# Verdicts


def test_the_verdict_leaves_a_quarter_above_and_a_tenth_below() -> None:
    usable = A100.usable_gib * GIB
    assert verdict_of(int(usable / 1.25), A100) is Verdict.FITS
    assert verdict_of(int(usable / 1.24), A100) is Verdict.UNSURE
    assert verdict_of(int(usable / 0.901), A100) is Verdict.UNSURE
    assert verdict_of(int(usable / 0.899), A100) is Verdict.WONT_FIT


def test_a_70b_in_16_bit_does_not_fit_one_card_and_a_1b_does() -> None:
    assert of(LORA, LLAMA_70B, A100).verdict is Verdict.WONT_FIT
    assert of({**LORA, "micro_batch_size": 1}, LLAMA_3B, A100).verdict is Verdict.FITS


def test_plain_multi_gpu_shards_nothing() -> None:
    one, four = parts_of(LORA, LLAMA_70B), parts_of(LORA, LLAMA_70B, count=4)
    assert four.weights == one.weights
    assert four.communication > one.communication
    assert parts_of({**LORA, **zero(3)}, LLAMA_70B, count=4).weights == pytest.approx(one.weights / 4, rel=0.01)


def test_a_quantized_model_that_each_gpu_loads_itself_may_need_the_most_while_it_loads() -> None:
    qlora = {**LORA, "adapter": "qlora", "load_in_4bit": True, "micro_batch_size": 1, "val_set_size": 0}
    loaded = {key: {"reshard_after_forward": True, "cpu_ram_efficient_loading": key} for key in (True, False)}
    whole = of({**qlora, "fsdp_config": loaded[False]}, LLAMA_70B, count=8)
    assert whole.moment == "loading"
    assert "while the model loads" in in_words(whole)
    assert whole.parts is not None
    embeddings = 2 * LLAMA_70B.vocabulary * LLAMA_70B.hidden
    assert whole.parts.weights == parts_of(qlora, LLAMA_70B).weights + 2 * embeddings  # as on one GPU, but in fp32
    assert of({**qlora, "fsdp_config": loaded[True]}, LLAMA_70B, count=8).moment == "training"
    assert of({**LORA, "fsdp_config": loaded[False]}, LLAMA_70B, count=8).moment == "training"


def test_liger_makes_logits_in_evaluation_which_may_then_be_the_peak() -> None:
    liger = {**LORA, "plugins": [LIGER], "liger_fused_linear_cross_entropy": True}
    found = of(liger)
    assert found.moment == "evaluation"
    assert "in evaluation" in in_words(found)
    assert of({**liger, "val_set_size": 0}).moment == "training"


def test_a_larger_evaluation_batch_counts() -> None:
    assert of({**LORA, "eval_batch_size": 8}).moment == "evaluation"
    assert parts_of({**LORA, "eval_batch_size": 8}).total > parts_of(LORA).total


def test_embeddings_trained_beside_an_adapter_cost_their_own_state() -> None:
    whole = parts_of({**LORA, "lora_modules_to_save": ["embed_tokens", "lm_head"]})
    extra = 2 * LLAMA_8B.vocabulary * LLAMA_8B.hidden
    assert whole.adapters - parts_of(LORA).adapters == pytest.approx(2 * extra, rel=0.01)
    assert whole.total - parts_of(LORA).total > 6e9  # the notes' 6 to 10 GB


def test_offloading_moves_bytes_to_the_machine() -> None:
    zero3 = {"stage": 3, "offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}
    offloaded = of({**FULL, "deepspeed": {"zero_optimization": zero3}}, LLAMA_70B, count=8)
    kept = of({**FULL, **zero(3)}, LLAMA_70B, count=8)
    assert offloaded.parts is not None
    assert kept.parts is not None
    assert offloaded.parts.weights == offloaded.parts.optimizer == 0
    assert kept.host == 0
    # 2 bytes of weights, 12 of state and 2 of gradients for each of 70.6 billion.
    assert offloaded.host == pytest.approx(16 * LLAMA_70B.parameters, rel=0.01)
    assert "GiB of the machine's memory" in in_words(offloaded)


def test_a_paged_optimizer_is_counted_in_the_machines_memory() -> None:
    paged, plain = (of({**FULL, "optimizer": name}) for name in ("paged_adamw_8bit", "adamw_bnb_8bit"))
    assert paged.parts is not None
    assert plain.parts is not None
    assert paged.parts.optimizer == 0
    assert paged.host == plain.parts.optimizer > 0


def test_deepspeeds_own_worked_example_is_an_upper_bound() -> None:
    """DeepSpeed's memory page: 2851 million weights over 8 GPUs, 15.93 GiB with ZeRO-2 and 6.10 GiB with ZeRO-3 (model
    state alone)."""
    facts = replace(LLAMA_3B, parameters=2_851_000_000, tied=True)
    for stage, published in ((2, 15.93), (3, 6.10)):
        parts = parts_of({**FULL, "micro_batch_size": 1, **zero(stage)}, facts, count=8)
        state = parts.weights + parts.gradients + parts.optimizer
        assert 0.6 * published <= state / GIB <= published


# What is unknown


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"tensor_parallel_size": 2}, "tensor parallelism"),
        ({"context_parallel_size": 4}, "context parallelism"),
        ({"rl": "dpo"}, "rl"),
        ({"qat": {"weight_dtype": "int8"}}, "qat"),
        ({"processor_type": "AutoProcessor"}, "images"),
        ({"adapter": "llama-adapter"}, "llama-adapter"),
        ({"deepspeed": "somewhere/zero3.json"}, "could not be read"),
        ({"load_in_8bit": True, "adapter": "lora", **zero(3)}, "8-bit"),
        ({"adapter": "lora", "lora_target_modules": ["in_proj"]}, "in_proj"),
        ({"adapter": "lora", "lora_modules_to_save": ["score"]}, "score"),
    ],
)
def test_what_has_no_published_figure_is_unknown_and_says_why(changed: dict[str, Any], why: str) -> None:
    found = of({**FULL, **changed}, count=4)
    assert found.verdict is Verdict.UNKNOWN
    assert why in found.reason
    assert found.parts is None
    assert in_words(found) == f"UNKNOWN: {found.reason}"


def test_a_model_without_facts_is_unknown() -> None:
    assert of(FULL, None).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("kind", [{"experts": 8, "active_experts": 2}, {"vision": True}])
def test_experts_and_images_are_unknown_unless_the_weights_alone_are_too_many(kind: dict[str, Any]) -> None:
    small, large = replace(LLAMA_8B, **kind), replace(LLAMA_70B, **kind)
    assert of(LORA, small).verdict is Verdict.UNKNOWN
    found = of(LORA, large)
    assert found.verdict is Verdict.WONT_FIT
    assert "weights alone" in in_words(found)
    four_bit = {**LORA, "adapter": "qlora", "load_in_4bit": True}
    assert of({**four_bit, "quantize_moe_experts": True}, large).verdict is Verdict.UNKNOWN
    assert of(four_bit, large).verdict is (Verdict.WONT_FIT if "experts" in kind else Verdict.UNKNOWN)
    assert of({**LORA, **zero(3)}, large, count=8).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("sharing", "held_by_two"),
    [
        (zero(1), False),
        (zero(2), False),
        (zero(3), True),
        (FSDP, True),
        ({"fsdp_config": {"offload_params": False}}, True),
    ],
)
def test_weights_alone_count_in_full_unless_cards_share_or_offload_them(
    sharing: dict[str, Any], held_by_two: bool
) -> None:
    experts = replace(LLAMA_70B, experts=8, active_experts=2)
    assert of({**LORA, **sharing}, experts).verdict is Verdict.WONT_FIT
    assert of({**LORA, **sharing}, experts, count=2).verdict is (Verdict.UNKNOWN if held_by_two else Verdict.WONT_FIT)
    assert of({**LORA, "fsdp_config": {"offload_params": True}}, experts).verdict is Verdict.UNKNOWN


@pytest.mark.parametrize("less", [{"gptq": True}, {"tensor_parallel_size": 4}, {"layer_offloading": True}])
def test_weights_that_may_be_fewer_on_a_card_are_no_reason_to_refuse(less: dict[str, Any]) -> None:
    assert of({**LORA, "rl": "dpo"}, LLAMA_70B, count=4).verdict is Verdict.WONT_FIT
    assert of({**LORA, "rl": "dpo", **less}, LLAMA_70B, count=4).verdict is Verdict.UNKNOWN


def test_experts_stay_in_16_bit_unless_they_are_quantized_too() -> None:
    """47 billion weights, 45 of them in experts, as Mixtral 8x7B has them."""
    mixtral = replace(
        LLAMA_8B, parameters=46_702_792_704, layers=32, hidden=4096, ffn=14336, experts=8, active_experts=2
    )
    four_bit = {**LORA, "adapter": "qlora", "load_in_4bit": True}
    for more in ({}, {"load_in_8bit": True, "load_in_4bit": False}):
        assert of({**four_bit, **more}, mixtral).verdict is Verdict.WONT_FIT
    assert of({**four_bit, "quantize_moe_experts": True}, mixtral).verdict is Verdict.UNKNOWN


def test_an_optimizer_that_is_not_listed_counts_as_adamw_and_says_so() -> None:
    found = of({**FULL, "optimizer": "sinkgd"})
    assert found.parts == of(FULL).parts
    assert "optimizer=sinkgd" in in_words(found)


# Words


def test_the_words_give_gibibytes_the_largest_parts_and_the_tokens() -> None:
    found = of({**LORA, "micro_batch_size": 8}, LLAMA_70B, A100)
    assert in_words(found).startswith("WON'T FIT: ")
    assert " GiB of 78 GiB (weights 131, logits 23, " in in_words(found)
    assert "8 x 2048 tokens (sequence_len)" in in_words(found)
    assert gib(1.04 * GIB) == "1.0"
    assert gib(9.96 * GIB) == "10"
