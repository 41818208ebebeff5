"""An Axolotl config -> how it trains (Stack), or why its memory cannot be estimated. Pure; Axolotl 0.21's defaults."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runner.config.fields import plugins_of
from runner.config.gpus import GpuKind
from runner.memory.optimizers import DEFAULT, optimizer_size
from runner.memory.sharding import Config, Shards, fsdp_of, integer, offloads_weights, sharding_of
from runner.memory.stack import LINEAR, NF4_DOUBLE, NF4_SINGLE, Adapter, Batch, Loss, Offloading, Sharding, Stack
from runner.memory.weights import ADAPTABLE
from runner.types import ModelFacts

_CHANGES_MEMORY = {
    "tensor_parallel_size": "tensor parallelism",
    "context_parallel_size": "context parallelism",
    "sequence_parallel_degree": "context parallelism",
    "expert_parallel_size": "expert parallelism",
}
"""Above 1, they split what the formulas assume to be undivided."""

NOT_MODELLED = (
    "rl reward_model process_reward_model unfrozen_parameters lisa_n_layers relora qat fp8 gptq layer_offloading "
    "tiled_mlp use_onebitllms diffusion_lm kd_trainer trainer_cls pretraining_dataset peft_layers_to_transform "
    "peft_layer_replication peft_trainable_token_indices lora_target_parameters lora_rank_pattern "
    "selective_checkpointing dynamic_checkpoint model_quantization_config quantization s2_attention "
    "overrides_of_model_config max_memory gpu_memory_limit device_map batch_size auto_find_batch_size"
).split()
"""Keys whose effect on memory is not estimated, since no published figures were found."""
LOADED_OTHERWISE = (
    "fp8 gptq layer_offloading max_memory gpu_memory_limit device_map model_quantization_config qat quantization "
    "overrides_of_model_config use_onebitllms"
).split()
"""Those with which a card may have less than all weights, or in fewer bits than load_in_4bit and load_in_8bit say."""

PAD_TO = 64
"""Axolotl pads a batch's rows to a multiple of this."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The parts of a config that the estimate depends on."""

    stack: Stack
    rows_from: str
    """How many tokens a GPU processes at a time, and why: `8 x 4096 tokens (sequence_len)`."""
    notes: tuple[str, ...] = ()
    """What was assumed."""


def reading_of(config: Config, facts: ModelFacts, gpu: GpuKind, count: int, longest_row: int | None) -> Reading | str:
    """The stack, or the reason why it cannot be estimated."""
    if reason := _unknown(config):
        return reason
    shards = sharding_of(config, count)
    if isinstance(shards, str):
        return shards
    adapter = _adapter(config)
    if isinstance(adapter, str):
        return adapter
    rows, training, evaluation = batches_of(config, longest_row)
    optimizer = optimizer_size(str(config.get("optimizer") or DEFAULT))
    width = _dtype_bytes(config, gpu)
    liger = _plugin(config, "liger", "LigerPlugin")
    stack = Stack(
        training=training,
        evaluation=evaluation,
        linear_bytes=_linear_bytes(config, width),
        dtype_bytes=width,
        embedding_bytes=4 if _embeddings_upcast(config, shards) else width,
        adapter=adapter,
        optimizer=optimizer,
        accumulates=integer(config, "gradient_accumulation_steps", 1) > 1,
        checkpointing=_checkpointing(config),
        offloading=_offloading(config),
        loss=_loss(config, liger),
        chunks=integer(config, "chunked_cross_entropy_num_chunks", 8),
        eager_attention=attention_of(config) == "eager",
        mask=bool(config.get("sample_packing"))
        and attention_of(config) == "sdpa"
        and config.get("sdpa_varlen") is False,
        fused_norm=liger and bool(config.get("liger_rms_norm")),
        fused_mlp=liger and bool(config.get("liger_glu_activation") or config.get("liger_swiglu")),
        compiled=config.get("torch_compile") is True,
        gpus=count,
        shards=shards.shards,
        sharding=shards.kind,
        reshards=shards.reshards,
        casts_adapter=shards.kind is Sharding.FSDP and not config.get("lora_fp32_gradients"),
        loads_whole=shards.loads_whole and bool(config.get("load_in_4bit")),
        offload_optimizer=shards.offload_optimizer,
        offload_weights=shards.offload_weights,
        bucket=shards.bucket if shards.bucket is not None else facts.hidden**2,
        buckets=shards.buckets,
        live=shards.live,
    )
    return Reading(stack, rows, tuple(_notes(config, optimizer.known)))


def _unknown(config: Config) -> str:
    for key, name in _CHANGES_MEMORY.items():
        if integer(config, key, 1) > 1:
            return f"{name} ({key}={config[key]}) is not estimated"
    for key in NOT_MODELLED:
        if config.get(key):
            return f"the effect of {key} on memory is not estimated"
    if config.get("processor_type") or config.get("image_size"):
        return "training on images is not estimated"
    return ""


def loads_all_weights(config: Config) -> bool:
    """Whether each card loads all weights, or its part of those that cards share: the least that a run needs."""
    split = any(integer(config, key, 1) > 1 for key in _CHANGES_MEMORY)
    return not split and not offloads_weights(config) and not any(config.get(key) for key in LOADED_OTHERWISE)


def _notes(config: Config, optimizer_known: bool) -> Iterator[str]:
    if not optimizer_known:
        yield f"the state of optimizer={config.get('optimizer')} is unknown: counted as AdamW's"
    if config.get("lora_target_modules") and not isinstance(config["lora_target_modules"], list):
        yield "lora_target_modules is a pattern: counted as every linear layer"


def _dtype_bytes(config: Config, gpu: GpuKind) -> int:
    """Axolotl's resolve_dtype: bf16 (or fp16 in its place) unless both are off."""
    bf16, fp16 = config.get("bf16", "auto"), config.get("fp16")
    if bf16 or fp16 or config.get("bfloat16") or config.get("float16") or config.get("load_in_8bit"):
        return 2
    return 4


def _linear_bytes(config: Config, width: int) -> float:
    if config.get("load_in_4bit"):
        options = config.get("bnb_config_kwargs")
        single = isinstance(options, Mapping) and options.get("bnb_4bit_use_double_quant") is False
        return NF4_SINGLE if single else NF4_DOUBLE
    return 1.0 if config.get("load_in_8bit") else float(width)


def _embeddings_upcast(config: Config, shards: Shards) -> bool:
    """Without an adapter, Axolotl leaves embeddings in fp32 unless the attention or the loss needs 16 bit, and also for
    QLoRA with FSDP (axolotl.loaders.model: should_convert_embedding_dtypes). DeepSpeed casts them back."""
    if evaluates_without_logits(config):
        return False
    if shards.kind is Sharding.FSDP and config.get("adapter") == "qlora":
        return not config.get("embeddings_skip_upcast")
    plain = not config.get("adapter") and shards.kind is Sharding.NONE
    return plain and _named_attention(config) in (None, "eager", "sdpa")


# Adapters


def _adapter(config: Config) -> Adapter | str | None:
    kind = config.get("adapter")
    if not kind:
        return None
    if kind not in ("lora", "qlora"):
        return f"adapter={kind} is not estimated"
    rank = integer(config, "lora_r", 8)
    targets = _targets(config)
    if isinstance(targets, str):
        return targets
    listed = config.get("lora_modules_to_save")
    saved = tuple(map(str, listed)) if isinstance(listed, list) else ()
    if strange := [name for name in saved if name not in ("embed_tokens", "lm_head")]:
        return f"lora_modules_to_save has {strange[0]}, whose size is unknown"
    return Adapter(
        rank=rank,
        targets=targets,
        dropout=bool(config.get("lora_dropout")),
        dora=bool(config.get("peft_use_dora")),
        kernels=lora_kernels(config),
        weight_bytes=2 if config.get("peft_autocast_adapter_dtype") is False else 4,
        saved_modules=saved,
    )


def _targets(config: Config) -> tuple[str, ...] | str:
    named = config.get("lora_target_modules") or []
    if not isinstance(named, list):
        return LINEAR
    names = [str(name).rpartition(".")[2] for name in named]
    if strange := [name for name in names if name not in ADAPTABLE]:
        return f"lora_target_modules has {strange[0]}, whose size is unknown"
    linear = LINEAR if config.get("lora_target_linear") or not names else ()
    return tuple(dict.fromkeys((*linear, *names)))


def lora_kernels(config: Config) -> bool:
    """Whether Axolotl's fused LoRA kernels run: as configured, or by its own rule (lora_kernels_auto_enable)."""
    flags = [config.get(f"lora_{part}_kernel") for part in ("mlp", "qkv", "o")]
    if any(flag is not None for flag in (*flags, config.get("lora_embedding_kernel"))):
        return all(flags)
    return not (config.get("trust_remote_code") or (config.get("adapter") == "lora" and config.get("load_in_8bit")))


# Loss, attention, activations

_CUT = ("cut_cross_entropy", "CutCrossEntropyPlugin")


def evaluates_without_logits(config: Config) -> bool:
    """Whether an evaluation computes its loss without logits, so that the losses of rows take one more pass. Liger's
    fused loss does so only while it trains."""
    return _plugin(config, *_CUT) and config.get("cut_cross_entropy") is not False


def _loss(config: Config, liger: bool) -> Loss:
    if evaluates_without_logits(config):
        return Loss.CUT
    if liger and config.get("liger_fused_linear_cross_entropy"):
        return Loss.FUSED
    if liger and config.get("liger_cross_entropy"):
        return Loss.LIGER
    return Loss.CHUNKED if config.get("chunked_cross_entropy") else Loss.PLAIN


def _plugin(config: Config, module: str, name: str) -> bool:
    names = (f"axolotl.integrations.{module}.{name}", f"axolotl.integrations.{module}.plugin.{name}")
    return any(plugin in names for plugin in plugins_of(config))


def _named_attention(config: Config) -> str | None:
    if named := config.get("attn_implementation"):
        return str(named)
    old = {"flash_attention": "flash_attention_2", "sdp_attention": "sdpa", "eager_attention": "eager"}
    old |= {key: key for key in ("xformers_attention", "flex_attention", "sage_attention")}
    return next((name for key, name in old.items() if config.get(key)), None)


def attention_of(config: Config) -> str:
    """The attention by its current name; transformers' own default is sdpa."""
    return _named_attention(config) or "sdpa"


def _checkpointing(config: Config) -> bool:
    return bool(config.get("gradient_checkpointing") or fsdp_of(config).get("activation_checkpointing"))


def _offloading(config: Config) -> Offloading:
    """With an adapter, `activation_offloading: true` replaces recomputing (axolotl.loaders.model)."""
    kind = config.get("activation_offloading")
    if config.get("gradient_checkpointing") in ("offload", "offload_disk"):
        kind = True
    if not kind:
        return Offloading.NONE
    return Offloading.ALL if kind is True and config.get("adapter") else Offloading.INPUTS


# Tokens


def batches_of(config: Config, longest_row: int | None) -> tuple[str, Batch, Batch | None]:
    """How many tokens a GPU processes at a time, and why; then what it trains on and what it evaluates at a time."""
    length = integer(config, "sequence_len", 512)
    rows = integer(config, "micro_batch_size", 1)
    eval_rows = integer(config, "eval_batch_size", rows)
    longest = math.inf if longest_row is None else math.ceil(longest_row / PAD_TO) * PAD_TO
    full = fills_rows(config)
    training = Batch(rows, length if full else int(min(length, longest)))
    packed_eval = config.get("eval_sample_packing")
    full_eval = bool(config.get("pad_to_sequence_len")) or bool(
        config.get("sample_packing") if packed_eval is None else packed_eval
    )
    eval_length = integer(config, "eval_sequence_len", length)
    evaluation = Batch(eval_rows, eval_length if full_eval else int(min(eval_length, longest)))
    if full:
        basis = "sequence_len, packed" if config.get("sample_packing") else "sequence_len, padded"
    else:
        basis = "sequence_len" if longest_row is None else "the longest prepared row"
    tokens = f"{rows} x {training.length} tokens ({basis})"
    # Whatever its interval is, axosweep also evaluates the first and the last state.
    holds_out = bool(config.get("val_set_size") or config.get("test_datasets"))
    return tokens, training, evaluation if holds_out else None


def fills_rows(config: Config) -> bool:
    """Whether every row that is trained on has sequence_len tokens."""
    return bool(config.get("sample_packing") or config.get("pad_to_sequence_len"))
