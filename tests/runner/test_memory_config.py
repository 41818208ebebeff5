from typing import Any

import pytest

from runner.config.gpus import GPUS
from runner.memory.config import Reading, lora_kernels, reading_of
from runner.memory.optimizers import BLOCKWISE_8BIT, OPTIMIZERS
from runner.memory.stack import LINEAR, Batch, Loss, Offloading, Sharding
from runner.memory.weights import adapter_weights, shape_of
from tests.runner.memory_points import CUT, LLAMA_3B, LLAMA_8B

LIGER = "axolotl.integrations.liger.LigerPlugin"
ROWS = {"sequence_len": 4096, "micro_batch_size": 8, "val_set_size": 0.1, "eval_steps": 10}


def read(config: dict[str, Any], longest_row: int | None = None, count: int = 1) -> Reading:
    found = reading_of(config, LLAMA_8B, GPUS["h100"], count, longest_row)
    assert isinstance(found, Reading), found
    return found


# Tokens


def test_loose_rows_are_as_long_as_the_longest_prepared_one_rounded_up_to_64() -> None:
    found = read(ROWS, longest_row=700)
    assert found.stack.training == Batch(8, 704)
    assert found.rows_from == "8 x 704 tokens (the longest prepared row)"


def test_rows_of_a_dataset_that_is_not_prepared_count_as_complete_sequences() -> None:
    assert read(ROWS).rows_from == "8 x 4096 tokens (sequence_len)"


@pytest.mark.parametrize(("key", "told"), [("sample_packing", "packed"), ("pad_to_sequence_len", "padded")])
def test_packed_and_padded_rows_are_complete_sequences(key: str, told: str) -> None:
    found = read({**ROWS, key: True}, longest_row=700)
    assert found.stack.training == Batch(8, 4096)
    assert told in found.rows_from


def test_evaluation_packs_as_training_does_unless_told_otherwise() -> None:
    packed = {**ROWS, "sample_packing": True}
    assert read(packed, 700).stack.evaluation == Batch(8, 4096)
    assert read({**packed, "eval_sample_packing": False, "eval_batch_size": 2}, 700).stack.evaluation == Batch(2, 704)


@pytest.mark.parametrize("without", [{}, {"eval_steps": None}, {"eval_steps": None, "eval_strategy": "no"}])
def test_a_run_with_held_out_rows_evaluates_its_first_and_last_state_whatever_the_interval(
    without: dict[str, Any],
) -> None:
    assert read({**ROWS, **without}).stack.evaluation == Batch(8, 4096)
    assert read({**ROWS, **without, "val_set_size": 0}).stack.evaluation is None


def test_numbers_count_however_they_are_written() -> None:
    assert read({"sequence_len": "4096", "micro_batch_size": 2.0}).stack.training == Batch(2, 4096)


def test_rows_of_a_longer_test_set_count_in_full() -> None:
    tests = {"sequence_len": 2048, "test_datasets": [{"path": "long.jsonl"}], "eval_sequence_len": 8192}
    found = read(tests, longest_row=7000).stack
    assert (found.training, found.evaluation) == (Batch(1, 2048), Batch(1, 7040))


# Precision


@pytest.mark.parametrize(
    ("precision", "bytes_each"),
    [({}, 2), ({"bf16": True}, 2), ({"bf16": False, "fp16": True}, 2), ({"bf16": False, "fp16": False}, 4)],
)
def test_weights_are_in_16_bit_unless_both_are_off(precision: dict[str, Any], bytes_each: int) -> None:
    assert read(precision).stack.dtype_bytes == bytes_each


def test_a_full_fine_tune_keeps_embeddings_in_fp32_where_the_attention_does_not_mind() -> None:
    assert read({"attn_implementation": "sdpa"}).stack.embedding_bytes == 4
    assert read({"attn_implementation": "flash_attention_2"}).stack.embedding_bytes == 2
    assert read({"adapter": "lora", "lora_r": 8, "attn_implementation": "sdpa"}).stack.embedding_bytes == 2


def test_qlora_keeps_embeddings_in_fp32_where_fsdp_shards_them() -> None:
    qlora = {"adapter": "qlora", "lora_r": 8, "load_in_4bit": True}
    fsdp = {"fsdp_config": {"cpu_ram_efficient_loading": True}}
    assert read(qlora, count=2).stack.embedding_bytes == 2
    assert read({**qlora, **fsdp}, count=2).stack.embedding_bytes == 4
    assert read({**qlora, **fsdp, "plugins": [CUT]}, count=2).stack.embedding_bytes == 2
    assert read({**qlora, **fsdp, "embeddings_skip_upcast": True}, count=2).stack.embedding_bytes == 2
    assert read(fsdp, count=2).stack.embedding_bytes == 2
    assert read({"plugins": [CUT], "cut_cross_entropy": False}).stack.embedding_bytes == 4


def test_double_quantization_is_the_default_and_can_be_off() -> None:
    four = {"adapter": "qlora", "lora_r": 8, "load_in_4bit": True}
    double, single = read(four), read({**four, "bnb_config_kwargs": {"bnb_4bit_use_double_quant": False}})
    assert double.stack.linear_bytes == pytest.approx(0.516, abs=0.001)
    assert single.stack.linear_bytes == 0.5625


# Adapters


def test_the_weights_of_an_adapter_are_rank_times_in_plus_out() -> None:
    adapter = read({"adapter": "lora", "lora_r": 8, "lora_target_linear": True}).stack.adapter
    assert adapter is not None
    assert adapter.targets == LINEAR
    # PEFT's own count for Llama 3 8B with rank 8 on all linear layers.
    assert adapter_weights(adapter, LLAMA_8B) == 20_971_520


def test_named_targets_are_counted_and_a_pattern_counts_as_all() -> None:
    named = read({"adapter": "lora", "lora_r": 32, "lora_target_modules": ["q_proj", "v_proj"]}).stack.adapter
    assert named is not None
    # peft's method_comparison, LoRA r32 on Llama 3.2 3B: num_trainable_params.
    assert adapter_weights(named, LLAMA_3B) == 9_175_040
    pattern = read({"adapter": "lora", "lora_r": 32, "lora_target_modules": ".*(up|down)_proj"})
    assert pattern.stack.adapter is not None
    assert pattern.stack.adapter.targets == LINEAR
    assert pattern.notes


@pytest.mark.parametrize(
    ("config", "runs"),
    [
        ({"adapter": "lora"}, True),
        ({"adapter": "qlora", "load_in_4bit": True}, True),
        ({"adapter": "lora", "load_in_8bit": True}, False),
        ({"adapter": "lora", "trust_remote_code": True}, False),
        ({"adapter": "lora", "lora_mlp_kernel": False}, False),
        ({"adapter": "lora", "lora_mlp_kernel": True, "lora_qkv_kernel": True, "lora_o_kernel": True}, True),
    ],
)
def test_the_fused_kernels_run_where_axolotl_turns_them_on(config: dict[str, Any], runs: bool) -> None:
    assert lora_kernels(config) is runs


# Loss, offloading, attention


@pytest.mark.parametrize(
    ("config", "loss"),
    [
        ({}, Loss.PLAIN),
        ({"chunked_cross_entropy": True}, Loss.CHUNKED),
        ({"plugins": [LIGER], "liger_fused_linear_cross_entropy": True}, Loss.FUSED),
        ({"plugins": [LIGER], "liger_cross_entropy": True}, Loss.LIGER),
        ({"liger_fused_linear_cross_entropy": True}, Loss.PLAIN),  # without its plugin the key does nothing
        ({"plugins": [CUT]}, Loss.CUT),
        ({"plugins": [CUT], "cut_cross_entropy": False}, Loss.PLAIN),
    ],
)
def test_the_loss_is_read_from_keys_and_plugins(config: dict[str, Any], loss: Loss) -> None:
    assert read(config).stack.loss is loss


def test_offloading_replaces_recomputing_where_an_adapter_is_trained() -> None:
    checkpointed = {"gradient_checkpointing": True, "activation_offloading": True}
    assert read({**checkpointed, "adapter": "lora", "lora_r": 8}).stack.offloading is Offloading.ALL
    assert read(checkpointed).stack.offloading is Offloading.INPUTS
    assert read({"gradient_checkpointing": "offload"}).stack.offloading is Offloading.INPUTS


@pytest.mark.parametrize(
    ("config", "eager"),
    [
        ({"attn_implementation": "eager"}, True),
        ({"eager_attention": True}, True),
        ({}, False),
        ({"flash_attention": True}, False),
    ],
)
def test_only_eager_attention_holds_the_scores(config: dict[str, Any], eager: bool) -> None:
    assert read(config).stack.eager_attention is eager


def test_packed_rows_need_a_mask_only_where_sdpa_may_not_keep_them_apart_itself() -> None:
    packed = {"sample_packing": True, "attn_implementation": "sdpa"}
    assert not read(packed).stack.mask
    assert read({**packed, "sdpa_varlen": False}).stack.mask


# Sharding


def test_sharding_is_read_from_deepspeed_and_fsdp() -> None:
    alone = read({}, count=4).stack
    assert (alone.sharding, alone.casts_adapter, alone.loads_whole) == (Sharding.NONE, False, False)
    zero = read({"deepspeed": {"zero_optimization": {"stage": 2, "overlap_comm": True}}}, count=4).stack
    assert (zero.sharding, zero.shards, zero.bucket, zero.buckets) == (Sharding.ZERO2, 4, 500_000_000, 2)
    fsdp = read({"fsdp_config": {"offload_params": True}, "dp_shard_size": 2}, count=8).stack
    assert (fsdp.sharding, fsdp.shards, fsdp.offload_weights) == (Sharding.FSDP, 2, True)
    assert fsdp.casts_adapter
    assert not read({"fsdp_config": {"offload_params": True}, "lora_fp32_gradients": True}, count=2).stack.casts_adapter
    automatic = read({"deepspeed": {"zero_optimization": {"stage": 3, "reduce_bucket_size": "auto"}}}, count=2).stack
    assert automatic.bucket == LLAMA_8B.hidden**2


def test_fsdps_earlier_names_mean_the_same() -> None:
    settings = {"offload_params": True, "reshard_after_forward": False, "cpu_ram_efficient_loading": True,
                "activation_checkpointing": True}  # fmt: skip
    named, prefixed = ({"fsdp_config": one} for one in (settings, {f"fsdp_{key}": settings[key] for key in settings}))
    assert read(prefixed, count=2) == read(named, count=2)
    assert read(prefixed, count=2).stack.offload_weights
    assert read(prefixed, count=2).stack.checkpointing


@pytest.mark.parametrize(
    "zero",
    [2, [], {"stage": [3]}, {"stage": "three"}, {"stage": 3, "offload_param": True},
     {"stage": 3, "reduce_bucket_size": "many", "stage3_max_live_parameters": None}],
)  # fmt: skip
def test_settings_that_deepspeed_will_refuse_are_none_or_a_reason(zero: Any) -> None:
    found = reading_of({"deepspeed": {"zero_optimization": zero}}, LLAMA_8B, GPUS["h100"], 4, None)
    assert isinstance(found, Reading) or "stage=" in found


# Sizes


def test_the_shape_of_a_model_is_all_of_its_weights() -> None:
    for facts in (LLAMA_3B, LLAMA_8B):
        assert shape_of(facts).total == facts.parameters
    assert LLAMA_8B.parameters == 8_030_261_248  # as published
    assert LLAMA_3B.parameters == 3_212_749_824


@pytest.mark.parametrize(
    ("name", "per_weight", "width"),
    [
        ("adamw_torch_fused", 4, 2),
        ("adamw_torch_fused", 8, 4),
        ("adamw_bnb_8bit", 2 * BLOCKWISE_8BIT, 2),
        ("lion_8bit", BLOCKWISE_8BIT, 4),
        ("paged_adamw_32bit", 8, 2),
        ("sgd", 0, 2),
    ],
)
def test_optimizers_keep_what_their_source_says(name: str, per_weight: float, width: int) -> None:
    assert OPTIMIZERS[name].bytes_per_weight(width) == per_weight


def test_8_bit_optimizers_keep_embeddings_in_32_bit() -> None:
    assert OPTIMIZERS["adamw_bnb_8bit"].bytes_per_embedding(2) == 8
    assert OPTIMIZERS["adamw_torch_8bit"].bytes_per_embedding(2) < 3
