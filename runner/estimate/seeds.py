"""Published speeds, as shares of a card's peak, for runs without similar records.

For another model or card, the same share is assumed (docs/cost.md). A seed may be off by half in either direction.
"""

from __future__ import annotations

import itertools

from runner.cost.types import Shape
from runner.memory.choice import PEAK_TFLOPS
from runner.types import ModelFacts

OFF = 0.5
"""The relative error of a seed."""

QWEN = "QwenLM/Qwen's README"
TORCHTUNE = "torchtune's README"

# Qwen-7B, LoRA of rank 64, one row per step, on one A100 of 80 GB. Seconds per iteration of 8 rows: 1.2, 1.5, 2.8, 5.2,
# 10.1 and 21.3; in 4 bit: 3.0, 3.0, 3.5, 7.0, 11.6 and 22.3. As shares of 312 TFLOP/s, with 6 operations per token and
# weight (4, and 2 to compute activations again). Tokens of a micro step -> share.
_LORA = {256: 0.23, 512: 0.37, 1024: 0.40, 2048: 0.43, 4096: 0.44, 8192: 0.42}
_QLORA = {256: 0.09, 512: 0.19, 1024: 0.32, 2048: 0.32, 4096: 0.38, 8192: 0.40}
_FULL = 0.44
"""Llama 3.2 3B in bf16, packed, two rows of 4096 per step on one A100, neither compiled nor with checkpointing: 7075
tokens/s. Compiled, it would be 0.57."""

OPERATIONS = {True: (4, 6), False: (6, 8)}
"""Floating point operations per token and weight, with and without an adapter: two forward, two for each kind of
gradient. The second figure is with checkpointing, which repeats the forward pass (EleutherAI/cookbook: 6PD)."""
FORWARD = 2


def operations(shape: Shape) -> int:
    """Operations per token and weight in training."""
    return OPERATIONS[shape.adapter != "none"][shape.checkpointing]


def matmul_weights(facts: ModelFacts) -> float:
    """The weights that a token is multiplied with: of the experts, the active ones; of the embeddings, the head."""
    if facts.active_parameters:
        return float(facts.active_parameters)
    idle = 0
    if facts.experts:
        idle = (facts.experts - (facts.active_experts or facts.experts)) * facts.layers * 3 * facts.hidden * facts.ffn
    looked_up = 0 if facts.tied else facts.vocabulary * facts.hidden
    return float(facts.parameters - idle - looked_up)


def peak(gpu: str) -> float | None:
    """Operations per second of one card; None for an unknown card."""
    return PEAK_TFLOPS[gpu] * 1e12 if gpu in PEAK_TFLOPS else None


def share_of_peak(shape: Shape, micro_tokens: float) -> tuple[float, str]:
    """The share of the peak that training reaches, and the source of that figure."""
    if shape.adapter == "none":
        return _FULL, TORCHTUNE
    return _between(_QLORA if shape.bits < 16 else _LORA, micro_tokens), QWEN


def seed_speed(shape: Shape, facts: ModelFacts | None, micro_tokens: float) -> tuple[float, str] | str:
    """Tokens per second of one card, and the source; or a sentence that says why there is none."""
    most = peak(shape.gpu)
    if most is None:
        cpu = "Modal's CPU" if shape.place == "modal" else "this CPU"
        return f"no similar run was trained on {cpu} yet, and there is no published speed for it"
    if facts is None:
        return "the shape of this base_model is unknown, and no similar run was trained here"
    share, source = share_of_peak(shape, micro_tokens)
    return share * most / (operations(shape) * matmul_weights(facts)), source


def _between(points: dict[int, float], at: float) -> float:
    """Linear between the points; proportional below the first, since so few tokens do not fill a card."""
    known = sorted(points)
    if at <= known[0]:
        return points[known[0]] * at / known[0]
    for left, right in itertools.pairwise(known):
        if at <= right:
            return points[left] + (points[right] - points[left]) * (at - left) / (right - left)
    return points[known[-1]]
