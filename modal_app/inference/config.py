"""A run's keyed config -> the config with which Axolotl loads its model for inference. Pure.

Keys of the model and the tokenizer stay. Keys that spread a training over GPUs, or only make training faster, are
removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.store.user_code import CONFIG_KEY

TRAINING_ONLY = (
    *("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "fp8_enable_fsdp_float8_all_gather", "use_ray"),
    *("tensor_parallel_size", "context_parallel_size", "dp_shard_size", "dp_replicate_size", "expert_parallel_size"),
    *("torch_compile", "gradient_checkpointing", "selective_checkpointing", "activation_offloading", "relora"),
    *("sample_packing", "eval_sample_packing", "pad_to_sequence_len", "resume_from_checkpoint", "lora_model_dir"),
    CONFIG_KEY,
)
ADAPTER = ("adapter", "lora_", "peft", "qlora_", "loraplus_")
"""Prefixes of the keys that describe an adapter."""
ADAPTER_START = ("peft_init_lora_weights", "peft")
"""Keys that would change the base model when an adapter is created for it."""
QUANTIZED = ("load_in_4bit", "load_in_8bit", "quantize_moe_experts")
"""How the base model of an adapter is quantized; without an adapter, Axolotl does not quantize."""
OF_THE_BASE = ("base_model_config", "tokenizer_config", "processor_config", "revision_of_model", "gptq")
"""Keys that do not apply to other weights, which come with these files of their own."""
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")


def config_to_load(config: Mapping[str, Any], *, adapter: Path | None, weights: Path | None) -> dict[str, Any]:
    """The config to load with: the base model with `adapter`, or alone, or `weights` in its place.

    Without `adapter`, a base model that the run quantizes gets a new adapter, which the caller must unload.
    """
    assert adapter is None or weights is None, "an adapter belongs to the base model"
    used = {key: value for key, value in config.items() if key not in TRAINING_ONLY and not key.startswith("wandb_")}
    if adapter is not None:
        used["lora_model_dir"] = str(adapter)
    elif weights is not None:
        used = {key: value for key, value in used.items() if key not in (*QUANTIZED, *OF_THE_BASE)}
        used = _without_adapter(used) | {"base_model": str(weights)}
    elif any(used.get(key) for key in QUANTIZED):
        used = {key: value for key, value in used.items() if key not in ADAPTER_START}
    else:
        used = _without_adapter(used)
    # If no key is set, Axolotl enables its fused kernels, which are for training.
    kernels = dict.fromkeys(KERNELS, False) if used.get("adapter") else {}
    return used | kernels | {"output_dir": "model", "sample_packing": False}


def _without_adapter(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if not key.startswith(ADAPTER)}
