"""What the preloaded trainer imports and builds before it forks, and what each fork must do first."""

from __future__ import annotations

import gc
import os
import sys

from modal_app.patches.apply import apply_fork_patches, apply_schema_patches, be_offline_as
from modal_app.process.imports import PREPROCESS, TRAIN, load
from modal_app.store.step import Device

LATE = (
    "axolotl.core.trainers.diffusion_lm.sampling",
    "axolotl.integrations.kernels.merge_aware_setup",
    "axolotl.loaders.nf4",
    "axolotl.model_support.nemotron_diffusion.compat",
    "axolotl.monkeypatch.attention.large_head",
    "axolotl.monkeypatch.bnb_large_tensors",
    "axolotl.monkeypatch.deepspeed_utils",
    "axolotl.monkeypatch.models.mamba_utils",
    "axolotl.monkeypatch.models.recurrent_support",
    "axolotl.monkeypatch.moe_quant",
    "axolotl.monkeypatch.parallel_weight_conversion",
    "axolotl.monkeypatch.peft.utils",
    "axolotl.monkeypatch.quantized_init",
    "axolotl.monkeypatch.ring_attn.patch",
    "axolotl.monkeypatch.torchao_ddp",
    "axolotl.monkeypatch.torchao_deepspeed",
    "axolotl.monkeypatch.torchao_optim",
    "axolotl.monkeypatch.torchao_tp_lora",
    "axolotl.monkeypatch.transformers.trainer_loss_calc",
    "axolotl.monkeypatch.transformers_fa_utils",
    "axolotl.monkeypatch.transformers_num_parameters",
    "axolotl.utils.gradient_clipping",
    "bitsandbytes.nn.parametrize",
    "fsspec.implementations.chained",
    "peft.tuners.lora.bnb",
    "peft.utils.transformers_weight_conversion",
    "tabulate",
    "torch.utils.serialization.config",
    "transformers.hf_argparser",
    "transformers.models.gemma4.modeling_gemma4",
    "wandb.sdk.launch",
)
"""Modules that every run imports while it works, whatever it trains. Axolotl's modules do nothing until they are
called. Another version of Axolotl may have others, so a missing module is skipped."""
EVERYTHING = (
    *PREPROCESS,
    *TRAIN,
    "trl",
    "peft",
    "wandb",
    "transformers.models.llama.modeling_llama",
    "torch._dynamo",
    "torch.distributed",
)


def preload() -> None:
    """Import everything, and build once what each fork would otherwise build: the schema, and transformers' table of
    former names of weights, 800 patterns to compile (45 ms). Then exclude all of it from garbage collection.
    """
    load(EVERYTHING, Device.CPU, optional=LATE)
    apply_schema_patches()
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")  # it caches the complete table
    gc.collect()
    gc.freeze()


def why_not_to_fork() -> str:
    """Why a fork of this process could not work; empty if it can."""
    import torch

    if torch.cuda.is_initialized():
        return "an import has initialized CUDA, which a forked process cannot use"
    return ""


def become_a_fresh_process() -> None:
    """In a fork: apply what imports in a fresh process with this environment would have done."""
    reseed_after_fork()
    be_offline_as(os.environ)
    apply_fork_patches()


def reseed_after_fork() -> None:
    """Seed the random generators from the system again, including the one with which datasets names what it cannot
    hash. Python's own `random` reseeds itself."""
    import numpy as np
    import torch

    np.random.seed()  # the state that libraries draw from
    torch.default_generator.seed()
    if (naming := sys.modules.get("datasets.fingerprint")) is not None:
        naming.fingerprint_rng.seed()
