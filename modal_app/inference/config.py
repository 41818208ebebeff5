"""A run's keyed config -> the one that Axolotl loads its model by, to answer and not to train. Pure.

What says how the model and the tokenizer are made stays; what spreads a training over GPUs, or makes only training
faster, goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRAINING_ONLY = (
    *("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "fp8_enable_fsdp_float8_all_gather", "use_ray"),
    *("tensor_parallel_size", "context_parallel_size", "dp_shard_size", "dp_replicate_size", "expert_parallel_size"),
    *("torch_compile", "gradient_checkpointing", "selective_checkpointing", "activation_offloading", "relora"),
    *("sample_packing", "eval_sample_packing", "pad_to_sequence_len", "resume_from_checkpoint", "lora_model_dir"),
)
ADAPTER = ("adapter", "lora_", "peft", "qlora_", "loraplus_")
"""How the keys begin that say what an adapter is."""
ADAPTER_START = ("peft_init_lora_weights", "peft")
"""Those that would change the base model when an adapter is made for it."""
QUANTIZED = ("load_in_4bit", "load_in_8bit", "quantize_moe_experts")
"""How the base model is loaded beneath an adapter: Axolotl does neither without one."""
OF_THE_BASE = ("base_model_config", "tokenizer_config", "processor_config", "revision_of_model", "gptq")
"""What is read from beside other weights, which have their own."""
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")


def asked_of(config: Mapping[str, Any], *, adapter: Path | None, weights: Path | None) -> dict[str, Any]:
    """The config to load by: the base model with `adapter`, or alone, or `weights` in its place.

    A base model that the run quantizes keeps an adapter, made anew: whoever loads it takes that off again.
    """
    assert adapter is None or weights is None, "an adapter belongs to the base model"
    kept = {key: value for key, value in config.items() if key not in TRAINING_ONLY and not key.startswith("wandb_")}
    if adapter is not None:
        kept["lora_model_dir"] = str(adapter)
    elif weights is not None:
        kept = {key: value for key, value in kept.items() if key not in (*QUANTIZED, *OF_THE_BASE)}
        kept = _without_adapter(kept) | {"base_model": str(weights)}
    elif any(kept.get(key) for key in QUANTIZED):
        kept = {key: value for key, value in kept.items() if key not in ADAPTER_START}
    else:
        kept = _without_adapter(kept)
    # Axolotl switches its fused kernels, which are for training, on where none is mentioned.
    kernels = dict.fromkeys(KERNELS, False) if kept.get("adapter") else {}
    return kept | kernels | {"output_dir": "model", "sample_packing": False}


def _without_adapter(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith(ADAPTER)}
