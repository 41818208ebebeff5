"""A run's keyed config -> the one that Axolotl loads its model by, to answer and not to train. Pure.

What says how the model and the tokenizer are made stays; what only training reads, and what spreads a training over
GPUs, goes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

TRAINING_ONLY = (
    *("deepspeed", "fsdp", "fsdp_config", "fsdp_version", "tensor_parallel_size", "context_parallel_size"),
    *("dp_shard_size", "dp_replicate_size", "expert_parallel_size", "ddp_timeout", "use_ray"),
    *("rl", "trl", "reward_model", "process_reward_model", "relora", "torch_compile", "gradient_checkpointing"),
    *("activation_offloading", "sample_packing", "eval_sample_packing", "pad_to_sequence_len"),
    *("auto_resume_from_checkpoints", "resume_from_checkpoint", "lora_model_dir", "output_dir"),
)
ADAPTER = ("adapter", "lora_", "peft_", "qlora_", "loraplus_", "loftq")
"""Where there is no adapter: keys that begin so."""
QUANTIZED = ("load_in_4bit", "load_in_8bit", "bnb_config_kwargs", "gptq")
OF_THE_BASE = ("base_model_config", "tokenizer_config", "processor_config", "revision_of_model")
"""What is read from beside other weights, which have their own."""
KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel")


def asked_of(config: Mapping[str, Any], *, adapter: Path | None, weights: Path | None) -> dict[str, Any]:
    """The config to load by: the base model alone, with `adapter`, or `weights` in its place."""
    assert adapter is None or weights is None, "an adapter belongs to the base model"
    kept = {key: value for key, value in config.items() if key not in TRAINING_ONLY and not key.startswith("wandb_")}
    if adapter is None:
        kept = {key: value for key, value in kept.items() if not key.startswith(ADAPTER)}
    else:
        # Axolotl switches its fused kernels, which are for training, on where none is mentioned.
        kept |= {"lora_model_dir": str(adapter)} | dict.fromkeys(KERNELS, False)
    if weights is not None:
        kept = {key: value for key, value in kept.items() if key not in (*QUANTIZED, *OF_THE_BASE)}
        kept["base_model"] = str(weights)
    return kept | {"output_dir": "model", "sample_packing": False}
