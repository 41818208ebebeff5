"""The heavy imports of the trainer, in one place: most of the time of a short run, paid once when they are shared."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from modal_app.patches import lean_imports
from modal_app.store.step import StepKind

PREPROCESS = ("axolotl.cli.preprocess", "modal_app.steps.plugin", "modal_app.steps.preprocess")
VALIDATE = ("axolotl.utils.config", "axolotl.integrations.base")
TRAIN = (
    "axolotl.cli.train",
    "axolotl.cli.config",
    "axolotl.cli.checks",
    "axolotl.train",
    "axolotl.loaders",
    "axolotl.core.builders",
    "axolotl.core.trainers",
    "axolotl.common.datasets",
    "axolotl.utils.trainer",
    "axolotl.utils.callbacks",
    "axolotl.integrations.context_parallel",
    "axolotl.integrations.expert_parallel",
    "axolotl.prompt_strategies.chat_template",
    "modal_app.steps.plugin",
)
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
AFTER = ("axolotl.cli.config", "axolotl.loaders", "modal_app.steps.plugin", "peft")
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
"""What every run imports on its way, whatever it trains. None of Axolotl's does anything before it is called. Another
Axolotl may have other ones: what is not there is not missed."""
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


def load(modules: Sequence[str], late: Sequence[str] = ()) -> None:
    """Import them, and of `late` what there is. No import asks the network: bitsandbytes would look for a kernel of its
    own on the hub.
    """
    before = {name: os.environ.get(name) for name in OFFLINE}
    os.environ |= dict.fromkeys(OFFLINE, "1")
    try:
        with lean_imports.lean_imports():
            for module in modules:
                importlib.import_module(module)
            for module in late:
                with contextlib.suppress(ImportError):
                    importlib.import_module(module)
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    be_offline_as(os.environ)


def follow(variables: Mapping[str, str]) -> None:
    """In a fork of a process that has imported everything: what an import would have made of it as a new process.

    Its random numbers are drawn anew from the system (Python's own `random` sees to itself), those by which datasets
    names what it cannot hash among them, and it is offline or not as its own environment says.
    """
    import numpy as np
    import torch

    np.random.seed()  # the state that libraries draw from
    torch.default_generator.seed()
    if (naming := sys.modules.get("datasets.fingerprint")) is not None:
        naming.fingerprint_rng.seed()
    be_offline_as(variables)


def be_offline_as(variables: Mapping[str, str]) -> None:
    """What huggingface_hub and datasets have read at import, as they read it."""
    hub, rows = sys.modules.get("huggingface_hub.constants"), sys.modules.get("datasets.config")
    offline = _is_true(variables.get("HF_HUB_OFFLINE") or variables.get("TRANSFORMERS_OFFLINE") or "")
    if hub is not None:
        hub.HF_HUB_OFFLINE = offline  # type: ignore[attr-defined]
    if rows is not None:
        asked = variables.get("HF_DATASETS_OFFLINE")
        rows.HF_HUB_OFFLINE = offline if asked is None else _is_true(asked)  # type: ignore[attr-defined]
        rows.HF_DATASETS_OFFLINE = rows.HF_HUB_OFFLINE  # type: ignore[attr-defined]


def _is_true(text: str) -> bool:
    return text.upper() in ("1", "ON", "YES", "TRUE")


def why_not_to_fork() -> str:
    """Why a fork of this process could not work; empty when nothing is in its way."""
    import torch

    if torch.cuda.is_initialized():
        return "an import has woken CUDA, which a forked process cannot use"
    return ""


def memoise_schema() -> None:
    """Keep the schema that Axolotl would build anew from the same plugins at every validation, at 80 ms each."""
    import axolotl.utils.config as place
    from axolotl.integrations.base import PluginManager

    build = place.merge_input_args
    built: dict[tuple[str, ...], Any] = {}

    def merge_input_args() -> Any:
        plugins = tuple(PluginManager.get_instance().get_input_args())
        if plugins not in built:
            built[plugins] = build()
        return built[plugins]

    place.merge_input_args = merge_input_args
    merge_input_args()


def build_tables() -> None:
    """Build once what each run would build anew on its way, the same every time: transformers' table of the names that
    weights have had, 800 patterns to compile (45 ms). Then nothing of it is looked at by the garbage collector, either.
    """
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")  # it keeps the whole table
    gc.collect()
    gc.freeze()


def for_kind(kind: StepKind) -> Sequence[str]:
    match kind:
        case StepKind.PREPROCESS:
            return PREPROCESS
        case StepKind.TRAIN:
            return TRAIN
        case StepKind.MERGE | StepKind.INFER | StepKind.EVALUATE:
            return AFTER
