"""Rules about DeepSpeed and FSDP: a model that is sharded although there is only one card, or no need to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runner.config.gpus import GPUS
from runner.memory.sharding import fsdp_of, offloads, zero_of, zero_stage
from runner.preflight.findings import Finding, warning
from runner.preflight.rules.run_facts import RunFacts

DEEPSPEED = "https://huggingface.co/docs/transformers/deepspeed"
FSDP = "https://huggingface.co/docs/transformers/fsdp"
PEFT_DEEPSPEED = "https://huggingface.co/docs/peft/accelerate/deepspeed"
SHARED = {
    1: "all states of the optimizer",
    2: "all gradients and states of the optimizer",
    3: "all weights, gradients and states of the optimizer",
}
NF4 = 0.56
"""Bytes per weight in 4 bit, with scales."""


def zero_on_one_card(run: RunFacts) -> Iterator[Finding]:
    """ZeRO shares a run's state between cards; on one card without offload it only adds its own copies and buffers."""
    zero, gpu = zero_of(run.axolotl), run.experiment.gpu
    stage = zero_stage(run.axolotl)
    if gpu.type != "cpu" and gpu.count == 1 and stage in SHARED and not _offloads(zero):
        yield warning(
            "deepspeed",
            f"(ZeRO-{stage} without offload)",
            f"on one card there is nothing to share: {SHARED[stage]} stay on it, next to DeepSpeed's own fp32 copy and "
            "buffers",
            "Choose deepspeed=none, more cards (gpu.count=2), or deepspeed=zero3_offload if it does not fit.",
            DEEPSPEED,
        )


def fsdp_on_one_card(run: RunFacts) -> Iterator[Finding]:
    """FSDP shares weights between cards; on one card without offload it only adds work."""
    config = fsdp_of(run.axolotl)
    if run.experiment.gpu.count == 1 and config and not config.get("offload_params"):
        yield warning(
            "fsdp_config",
            "(set, without offload_params)",
            "on one card there is nothing to share: all weights stay on it, and each layer is gathered again in "
            "each step without any use",
            "Choose fsdp=none (or ~fsdp_config), or more cards (gpu.count=2).",
            FSDP,
        )


def zero3_of_a_small_quantized_model(run: RunFacts) -> Iterator[Finding]:
    """QLoRA makes a model small enough for each card; ZeRO-3 then sends all its weights around in each step."""
    kind = GPUS.get(run.experiment.gpu.type)
    if run.axolotl.get("adapter") != "qlora" or run.experiment.gpu.count == 1 or kind is None or run.model is None:
        return
    zero, size = zero_of(run.axolotl), run.model.parameters * NF4
    if zero_stage(run.axolotl) == 3 and not _offloads(zero) and size < kind.usable_gib * 2**30 / 5:
        yield warning(
            "deepspeed",
            "(ZeRO-3 with adapter=qlora)",
            f"in 4 bit the model takes {size / 1e9:.0f} GB of the {kind.memory_gb} GB of each card, and ZeRO-3 would "
            "gather it from all cards in each forward and backward pass to save that",
            "Choose deepspeed=none or deepspeed=zero1: each card then has a copy.",
            PEFT_DEEPSPEED,
        )


def _offloads(zero: Mapping[str, Any]) -> bool:
    return offloads(zero.get("offload_param")) or offloads(zero.get("offload_optimizer"))


RULES = (zero_on_one_card, fsdp_on_one_card, zero3_of_a_small_quantized_model)
