"""Peaks and runs out of memory that foundation-model-stack/fms-acceleration publishes, for one, two and four A100s.

Each is a file of scripts/benchmarks/refs, commit 876e2ed. Its scenarios*.yaml, defaults.yaml and accelerate.yaml give
the settings: bf16, rows of 4,096 tokens, FlashAttention 2, checkpointing, torch's AdamW without accumulation; LoRA r16
with dropout on q, k, v and o. Several cards are FSDP1, full shard. The figure is the most that torch had allocated; a
row without a figure ran out of memory. Left out are models whose MLP has two matrices, mixtures of experts, and GPTQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.memory.optimizers import OPTIMIZERS
from runner.memory.stack import NF4_DOUBLE, Adapter, Batch, Loss, Sharding, Stack
from tests.runner.memory_points import LLAMA2_70B, LLAMA_8B, MISTRAL_7B, Point, model

FMS = "https://github.com/foundation-model-stack/fms-acceleration/blob/876e2ed/scripts/benchmarks/refs"

POWERLM_3B = model(2304, 40, 36, 36, 64, 9216, 49152, tied=True)

Row = tuple[str, str, int, Mapping[int, float | None]]
"""Model, method, cards, and GiB by rows per card; None means out of memory."""

# fmt: off
A100: tuple[Row, ...] = (
    ("Mistral 7B", "full", 1, {4: 67.46, 8: 67.46}),
    ("Mistral 7B", "full", 2, {2: 33.74, 4: 33.74}),
    ("Mistral 7B", "full fast", 1, {4: 67.46, 8: 67.46}),
    ("Mistral 7B", "full fast", 2, {2: 33.74, 4: 33.74}),
    ("Llama 2 70B", "full", 1, {4: None, 8: None}),
    ("Llama 2 70B", "full", 2, {2: None, 4: None}),
    ("Llama 2 70B", "full fast", 1, {4: None, 8: None}),
    ("Llama 2 70B", "full fast", 2, {2: None, 4: None}),
    ("Mistral 7B", "LoRA", 1, {4: 24.87, 8: 36.08}),
    ("Mistral 7B", "LoRA", 2, {2: 14.1, 4: 20.45}),
    ("Mistral 7B", "LoRA fast", 1, {4: 22.79, 8: 31.93}),
    ("Mistral 7B", "LoRA fast", 2, {2: 13.92, 4: 20.08}),
    ("Llama 2 70B", "LoRA", 1, {4: None, 8: None}),
    ("Llama 2 70B", "LoRA", 2, {2: None, 4: None}),
    ("Llama 2 70B", "LoRA fast", 1, {4: None, 8: None}),
    ("Llama 2 70B", "LoRA fast", 2, {2: None, 4: None}),
    ("Mistral 7B", "QLoRA plain", 1, {4: 19.25, 8: 34.46}),
    ("Mistral 7B", "QLoRA plain", 2, {2: 8.78, 4: 14.87}),
    ("Llama 2 70B", "QLoRA plain", 1, {4: None, 8: None}),
    ("Llama 2 70B", "QLoRA plain", 2, {2: 43.48, 4: None}),
    ("Mistral 7B", "QLoRA", 1, {4: 15.25, 8: 26.46}),
    ("Mistral 7B", "QLoRA", 2, {2: 8.78, 4: 14.87}),
    ("Mistral 7B", "QLoRA fast", 1, {4: 13.15, 8: 22.28}),
    ("Mistral 7B", "QLoRA fast", 2, {2: 8.58, 4: 14.42}),
    ("Llama 2 70B", "QLoRA", 1, {4: 63.45, 8: None}),
    ("Llama 2 70B", "QLoRA", 2, {2: 43.48, 4: None}),
    ("Llama 2 70B", "QLoRA fast", 1, {4: 62.44, 8: None}),
    ("Llama 2 70B", "QLoRA fast", 2, {2: 43.22, 4: None}),
)
"""a100_80gb.csv, transformers 4.48."""

GRANITE: tuple[Row, ...] = (
    ("PowerLM 3B", "full", 1, {4: 32.72, 8: 43.83}),
    ("PowerLM 3B", "full", 2, {2: 16.42, 4: 22.15}),
    ("PowerLM 3B", "full fast", 1, {4: 32.72, 8: 37.55}),
    ("PowerLM 3B", "full fast", 2, {2: 16.41, 4: 19.0}),
    ("PowerLM 3B", "LoRA", 1, {4: 18.78, 8: 30.88}),
    ("PowerLM 3B", "LoRA", 2, {2: 9.61, 4: 15.66}),
    ("PowerLM 3B", "LoRA fast", 1, {4: 15.71, 8: 24.74}),
    ("PowerLM 3B", "LoRA fast", 2, {2: 8.08, 4: 12.59}),
    ("PowerLM 3B", "QLoRA plain", 1, {4: 16.93, 8: 31.83}),
    ("PowerLM 3B", "QLoRA plain", 2, {2: 7.29, 4: 13.34}),
    ("PowerLM 3B", "QLoRA", 1, {4: 14.11, 8: 26.2}),
    ("PowerLM 3B", "QLoRA", 2, {2: 7.29, 4: 13.34}),
    ("PowerLM 3B", "QLoRA fast", 1, {4: 11.02, 8: 20.04}),
    ("PowerLM 3B", "QLoRA fast", 2, {2: 5.78, 4: 10.29}),
)
"""a100_80gb_granite.csv, transformers 4.45."""

LIGER: tuple[Row, ...] = (
    ("Llama 3 8B", "full fast", 1, {4: 74.8, 8: None, 16: None, 32: None}),
    ("Llama 3 8B", "full liger", 1, {4: 74.8, 8: 74.8, 16: None, 32: None}),
    ("Llama 3 8B", "LoRA fast", 1, {4: 35.06, 8: 54.96, 16: None, 32: None}),
    ("Llama 3 8B", "LoRA liger", 1, {4: 23.2, 8: 31.26, 16: 47.4, 32: None}),
    ("Llama 3 8B", "QLoRA fast", 1, {4: 25.39, 8: 45.29, 16: None, 32: None}),
    ("Llama 3 8B", "QLoRA liger", 1, {4: 13.42, 8: 21.36, 16: 37.24, 32: 69.0}),
    ("Llama 3 8B", "full fast", 2, {4: 74.8, 8: None, 16: None, 32: None}),
    ("Llama 3 8B", "full liger", 2, {4: 74.8, 8: 74.8, 16: None, 32: None}),
    ("Llama 3 8B", "LoRA fast", 2, {4: 29.44, 8: 49.34, 16: None, 32: None}),
    ("Llama 3 8B", "LoRA liger", 2, {4: 21.78, 8: 33.59, 16: 57.23, 32: None}),
    ("Llama 3 8B", "QLoRA fast", 2, {4: 24.69, 8: 44.59, 16: None, 32: None}),
    ("Llama 3 8B", "QLoRA liger", 2, {4: 16.62, 8: 28.31, 16: 51.69, 32: None}),
    ("Llama 3 8B", "full fast", 4, {4: 44.32, 8: 64.22, 16: None, 32: None}),
    ("Llama 3 8B", "full liger", 4, {4: 37.41, 8: 41.04, 16: 56.17, 32: None}),
    ("Llama 3 8B", "LoRA fast", 4, {4: 25.66, 8: 45.56, 16: None, 32: None}),
    ("Llama 3 8B", "LoRA liger", 4, {4: 17.99, 8: 29.81, 16: 53.44, 32: None}),
    ("Llama 3 8B", "QLoRA fast", 4, {4: 23.39, 8: 43.29, 16: None, 32: None}),
    ("Llama 3 8B", "QLoRA liger", 4, {4: 15.32, 8: 27.01, 16: 50.39, 32: None}),
    ("Mistral 7B", "full fast", 1, {4: 67.46, 8: 67.46, 16: None, 32: None}),
    ("Mistral 7B", "full liger", 1, {4: 67.46, 8: 67.46, 16: 71.85, 32: None}),
    ("Mistral 7B", "LoRA fast", 1, {4: 21.91, 8: 30.17, 16: 46.68, 32: None}),
    ("Mistral 7B", "LoRA liger", 1, {4: 21.91, 8: 30.17, 16: 46.68, 32: None}),
    ("Mistral 7B", "QLoRA fast", 1, {4: 12.17, 8: 20.32, 16: 36.64, 32: 69.26}),
    ("Mistral 7B", "QLoRA liger", 1, {4: 12.14, 8: 20.27, 16: 36.52, 32: 69.03}),
    ("Mistral 7B", "full fast", 2, {4: 67.46, 8: 67.46, 16: None, 32: None}),
    ("Mistral 7B", "full liger", 2, {4: 67.46, 8: 67.46, 16: None, 32: None}),
    ("Mistral 7B", "LoRA fast", 2, {4: 19.76, 8: 31.77, 16: 55.78, 32: None}),
    ("Mistral 7B", "LoRA liger", 2, {4: 19.76, 8: 31.77, 16: 55.78, 32: None}),
    ("Mistral 7B", "QLoRA fast", 2, {4: 14.61, 8: 26.49, 16: 50.24, 32: None}),
    ("Mistral 7B", "QLoRA liger", 2, {4: 14.61, 8: 26.49, 16: 50.24, 32: None}),
    ("Mistral 7B", "full fast", 4, {4: 33.74, 8: 37.05, 16: 53.36, 32: None}),
    ("Mistral 7B", "full liger", 4, {4: 33.74, 8: 37.0, 16: 52.51, 32: None}),
    ("Mistral 7B", "LoRA fast", 4, {4: 16.34, 8: 28.34, 16: 52.35, 32: None}),
    ("Mistral 7B", "LoRA liger", 4, {4: 16.34, 8: 28.34, 16: 52.35, 32: None}),
    ("Mistral 7B", "QLoRA fast", 4, {4: 13.67, 8: 25.55, 16: 49.31, 32: None}),
    ("Mistral 7B", "QLoRA liger", 4, {4: 13.67, 8: 25.55, 16: 49.31, 32: None}),
)
"""a100_80gb_liger.csv, transformers 4.45; bf16 with fp32 masters where weights are sharded and trained."""
# fmt: on

_MODELS = {"Mistral 7B": MISTRAL_7B, "Llama 2 70B": LLAMA2_70B, "PowerLM 3B": POWERLM_3B, "Llama 3 8B": LLAMA_8B}
_LOSS = {"": Loss.PLAIN, "plain": Loss.PLAIN, "fast": Loss.LIGER, "liger": Loss.FUSED}
_WORDS = {"": "", "plain": ", plain PEFT", "fast": ", fast kernels", "liger": ", fast kernels, fused loss"}


@dataclass(frozen=True)
class Group:
    """The runs of one model and method on the same cards, which differ in the rows per card."""

    name: str
    cards: int
    peaks: Mapping[int, Point]
    out_of_memory: Mapping[int, Point]

    @property
    def row(self) -> str:
        """The row in docs/memory-evidence.md."""
        points = self.peaks.values()
        columns = (
            ", ".join(map(str, self.peaks)),
            ", ".join(f"{point.published:.1f}" for point in points),
            ", ".join(f"{point.estimated:.1f}" for point in points),
            ", ".join(f"{point.error:+.1%}" for point in points),
        )
        return f"| {self.name} | {self.cards} | {' | '.join(columns)} |"


def groups(rows: tuple[Row, ...]) -> tuple[Group, ...]:
    return tuple(_group(row, mixed=rows is LIGER) for row in rows)


def _group(row: Row, *, mixed: bool) -> Group:
    model_name, method, cards, figures = row
    kind, _, kernels = method.partition(" ")
    facts = _MODELS[model_name]
    made = {
        rows: Point(model_name, method, _stack(method, cards, rows, mixed=mixed), facts, figure or 0.0, FMS)
        for rows, figure in figures.items()
    }
    return Group(
        f"{model_name}, {kind}{_WORDS[kernels]}",
        cards,
        {rows: made[rows] for rows, figure in figures.items() if figure is not None},
        {rows: made[rows] for rows, figure in figures.items() if figure is None},
    )


def _stack(method: str, cards: int, rows: int, *, mixed: bool) -> Stack:
    """`mixed`: with bf16=True, for which accelerate creates fp32 masters of the trained weights, and FSDP gathers in
    bf16."""
    kind, _, kernels = method.partition(" ")
    fast = kernels in ("fast", "liger")
    adapter = None
    if kind != "full":
        adapter = Adapter(16, ("q_proj", "k_proj", "v_proj", "o_proj"), dropout=True, kernels=kind == "QLoRA" and fast)
    shared: dict[str, Any] = {}
    if cards > 1:
        shared = {"gpus": cards, "shards": cards, "sharding": Sharding.FSDP1, "keeps_inputs": adapter is not None}
        shared |= {"fp32_masters": mixed and adapter is None, "casts_adapter": mixed or kind == "QLoRA"}
    return Stack(
        Batch(rows, 4096),
        linear_bytes=NF4_DOUBLE if kind == "QLoRA" else 2.0,
        adapter=adapter,
        optimizer=OPTIMIZERS["adamw_torch"],
        checkpointing=True,
        loss=_LOSS[kernels],
        fused_norm=fast,
        **shared,
    )


GROUPS = (*groups(A100), *groups(GRANITE), *groups(LIGER))
FITTED_SHARDED = tuple(group for group in groups(A100) if group.peaks and group.cards > 1)
"""FSDP1's factors were found on these: the first file, two cards."""
NOT_AXOLOTLS = tuple(group for group in GROUPS if group.peaks and group.cards == 1 and "plain PEFT" in group.name)
"""PEFT's k-bit preparation has left the residual stream in fp32. Axolotl converts it back."""
HELD_OUT_FMS = tuple(
    group
    for group in (*(one for one in groups(A100) if one.cards == 1), *groups(GRANITE), *groups(LIGER))
    if group.peaks and group not in NOT_AXOLOTLS
)
