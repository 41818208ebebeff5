"""A sound LoRA config into which the cases of preflight merge their changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOUND: Mapping[str, Any] = {
    "base_model": "NousResearch/Meta-Llama-3-8B-Instruct",
    "datasets": [{"path": "tatsu-lab/alpaca", "type": "alpaca"}],
    "val_set_size": 0.05,
    "sequence_len": 2048,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_epochs": 1,
    "adapter": "lora",
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_target_linear": True,
    "optimizer": "adamw_torch_fused",
    "lr_scheduler": "cosine",
    "learning_rate": 2e-4,
    "bf16": True,
    "attn_implementation": "flash_attention_2",
    "evals_per_epoch": 2,
    "saves_per_epoch": 1,
    "logging_steps": 1,
    "seed": 42,
}
