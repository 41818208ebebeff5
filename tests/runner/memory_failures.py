"""Runs that others have published as out of memory, and axosweep's verdict on each before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from runner.config.gpus import GPUS
from runner.memory.estimate import Estimate, Verdict, estimate, peak, verdict_of
from tests.runner.memory_points import GIB, LLAMA2_70B, LLAMA_8B, MISTRAL_7B, model
from tests.runner.memory_points_fms import GROUPS, Group

A100 = GPUS["a100_80gb"]

MIXTRAL = replace(model(4096, 32, 32, 8, 128, 14336, 32000), parameters=46_702_792_704, experts=8, active_experts=2)


@dataclass(frozen=True)
class Failed:
    """Runs of one model and method on the same cards, all of them out of memory."""

    name: str
    cards: str
    sizes: tuple[int, ...]
    """Rows per card."""
    needs: tuple[float | None, ...]
    """GiB, as estimated."""
    verdicts: tuple[Verdict, ...]

    @property
    def row(self) -> str:
        """The row in docs/memory-evidence.md."""
        needs = ", ".join("-" if size is None else f"{size:.0f}" for size in self.needs)
        verdicts = ", ".join(dict.fromkeys(self.verdicts))
        return f"| {self.name} | {self.cards} | {', '.join(map(str, self.sizes))} | {needs} | {verdicts} |"


def _from_group(group: Group) -> Failed:
    totals = [peak(point.stack, point.facts)[0].total for point in group.out_of_memory.values()]
    verdicts = [
        verdict_of(total, A100, sharded=point.stack.sharded)
        for total, point in zip(totals, group.out_of_memory.values(), strict=True)
    ]
    needs = tuple(total / GIB for total in totals)
    return Failed(group.name, str(group.cards), tuple(group.out_of_memory), needs, tuple(verdicts))


def _by_config(name: str, cards: str, sizes: tuple[int, ...], found: Estimate) -> Failed:
    need = found.parts.total / GIB if found.parts else None
    return Failed(name, cards, sizes, (need,) * len(sizes), (found.verdict,) * len(sizes))


def _unknown(name: str, facts: Any, cards: int, sizes: tuple[int, ...], **config: Any) -> Failed:
    shared: Mapping[str, Any] = {"fsdp_config": {"reshard_after_forward": True}} if cards > 1 else {}
    found = estimate({"sequence_len": 4096, "micro_batch_size": sizes[0], **shared, **config}, facts, A100, cards)
    return _by_config(name, str(cards), sizes, found)


_GPTQ = {"adapter": "lora", "gptq": True}
_MOE = tuple(
    _unknown(f"Mixtral 8x7B, {kind}{kernels}", MIXTRAL, cards, sizes, **config)
    for kind, config, counts in (("full", {}, (1, 2)), ("LoRA", {"adapter": "lora"}, (1,)))
    for kernels in ("", ", fast kernels")
    for cards, sizes in ((1, (4, 8)), (2, (2, 4)))
    if cards in counts
)
_QUANTIZED = (
    *(_unknown(f"Llama 2 70B, GPTQ LoRA{kernels}", LLAMA2_70B, cards, (rows,), **_GPTQ)
      for kernels in ("", ", fast kernels") for cards, rows in ((1, 8), (2, 4))),
    *(_unknown("Llama 3 8B, GPTQ LoRA, fast kernels", LLAMA_8B, cards, (16, 32), **_GPTQ) for cards in (1, 2, 4)),
    *(_unknown("Llama 3 8B, GPTQ LoRA, fast kernels, fused loss", LLAMA_8B, cards, (32,), **_GPTQ) for cards in (2, 4)),
    *(_unknown(f"Mistral 7B, GPTQ LoRA, fast kernels{loss}", MISTRAL_7B, cards, (32,), **_GPTQ)
      for loss in ("", ", fused loss") for cards in (2, 4)),
)  # fmt: skip

_ZERO3 = {"stage": 3, "overlap_comm": False, "reduce_bucket_size": "auto", "stage3_max_live_parameters": 1e9}
_ZERO = _by_config(
    "Llama 3 8B, full, ZeRO-3, 1,024 tokens a row",
    "8 of 24 GB",
    (1,),
    estimate(
        {
            "sequence_len": 1024,
            "micro_batch_size": 1,
            "gradient_accumulation_steps": 2,
            "optimizer": "adamw_torch",
            "fp16": True,
            "bf16": False,
            "gradient_checkpointing": True,
            "val_set_size": 0.1,
            "eval_steps": 500,
            "deepspeed": {"zero_optimization": _ZERO3},
        },
        LLAMA_8B,
        GPUS["a10"],
        8,
    ),
)

FAILED = (*(_from_group(group) for group in GROUPS if group.out_of_memory), *_MOE, *_QUANTIZED, _ZERO)
"""Every row without a figure of three files of fms-acceleration (memory_points_fms.py), and a report of LLaMA-Factory
with its settings: https://github.com/hiyouga/LLaMA-Factory/issues/5977"""
