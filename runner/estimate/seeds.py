"""Speeds that others published, for a run that no record of ours is like: what share of a card's peak training reaches.

A seed is moved to another model or card by keeping that share (docs/cost.md). It is good to a half either way.
"""

from __future__ import annotations

import itertools

from runner.cost.types import Shape
from runner.memory.choice import PEAK_TFLOPS
from runner.types import ModelFacts

OFF = 0.5
"""By which share of itself a seed may be off."""

QWEN = "QwenLM/Qwen's README"
TORCHTUNE = "torchtune's README"

# Qwen-7B, LoRA of rank 64, one row a step, on one A100 of 80 GB, by seconds an iteration of 8 rows: 1.2, 1.5, 2.8, 5.2,
# 10.1 and 21.3, and in 4 bit 3.0, 3.0, 3.5, 7.0, 11.6 and 22.3. As shares of 312 TFLOP/s, with 6 operations per token
# and weight (4, and 2 to compute activations again). Tokens of a micro step -> share.
_LORA = {256: 0.23, 512: 0.37, 1024: 0.40, 2048: 0.43, 4096: 0.44, 8192: 0.42}
_QLORA = {256: 0.09, 512: 0.19, 1024: 0.32, 2048: 0.32, 4096: 0.38, 8192: 0.40}
_FULL = 0.44
"""Llama 3.2 3B in bf16, packed, two rows of 4096 a step on one A100, neither compiled nor with checkpointing: 7075
tokens/s. Compiled 0.57."""

OPERATIONS = {True: (4, 6), False: (6, 8)}
"""Floating point operations per token and weight, with an adapter and without: two forward, two for each kind of
gradient; the second figure with checkpointing, which computes the forward pass again (EleutherAI/cookbook: 6PD)."""
FORWARD = 2


def operations(shape: Shape) -> int:
    """Per token and weight, in training."""
    return OPERATIONS[shape.adapter != "none"][shape.checkpointing]


def matmul_weights(facts: ModelFacts) -> float:
    """The weights that a token is multiplied with: of experts those it passes through, of embeddings the head."""
    idle = 0
    if facts.experts:
        idle = (facts.experts - (facts.active_experts or facts.experts)) * facts.layers * 3 * facts.hidden * facts.ffn
    looked_up = 0 if facts.tied else facts.vocabulary * facts.hidden
    return float(facts.parameters - idle - looked_up)


def peak(gpu: str) -> float | None:
    """Operations a second of one card; None for what is no card of ours."""
    return PEAK_TFLOPS[gpu] * 1e12 if gpu in PEAK_TFLOPS else None


def share_of_peak(shape: Shape, micro_tokens: float) -> tuple[float, str]:
    """What training reaches, and whose figure that is."""
    if shape.adapter == "none":
        return _FULL, TORCHTUNE
    return _between(_QLORA if shape.bits < 16 else _LORA, micro_tokens), QWEN


def seed_speed(shape: Shape, facts: ModelFacts | None, micro_tokens: float) -> tuple[float, str] | str:
    """Tokens a second of one card, and the source; or a sentence why there is none."""
    most = peak(shape.gpu)
    if most is None:
        cpu = "Modal's CPU" if shape.place == "modal" else "this CPU"
        return f"nothing like it has been trained on {cpu} yet, and no published speed holds for it"
    if facts is None:
        return "nothing is known of this base_model's shape, and nothing like it has been trained here"
    share, source = share_of_peak(shape, micro_tokens)
    return share * most / (operations(shape) * matmul_weights(facts)), source


def _between(points: dict[int, float], at: float) -> float:
    """Linear between the points, proportional below the first: so few tokens leave a card waiting."""
    known = sorted(points)
    if at <= known[0]:
        return points[known[0]] * at / known[0]
    for left, right in itertools.pairwise(known):
        if at <= right:
            return points[left] + (points[right] - points[left]) * (at - left) / (right - left)
    return points[known[-1]]
