"""Bytes of the weights that are gathered from all GPUs, and of their gradients before they are shared out, by moment.

FSDP gathers one unit at a time: each layer is one, and all weights outside the layers are another, the root. The
factors were counted on two processes (tests/runner/sharding_counter.py counts them again).
"""

from __future__ import annotations

from dataclasses import dataclass

from runner.memory.stack import Sharding, Stack
from runner.memory.weights import shape_of, trained
from runner.types import ModelFacts


@dataclass(frozen=True, slots=True)
class GatheredBytes:
    """Of one GPU, in bytes."""

    start: float = 0.0
    """In the first layer of the forward pass, when nothing is saved yet."""
    forward: float = 0.0
    """In the last layer of the forward pass."""
    loss: float = 0.0
    last_layer: float = 0.0
    """While the last layer, which is the first one, is differentiated."""
    first_layer: float = 0.0
    embedding: float = 0.0
    """At the end of the backward pass, with the root's gradients."""
    step: float = 0.0


def gathered(stack: Stack, facts: ModelFacts) -> GatheredBytes:
    if stack.shards == 1 and not stack.offload_weights:
        return GatheredBytes()
    match stack.sharding:
        case Sharding.FSDP | Sharding.FSDP1:
            return _by_fsdp(stack, facts)
        case Sharding.ZERO3:
            size = _by_zero(stack, facts)
            return GatheredBytes(size, size, size, size, size, size, size)
        case _:
            return GatheredBytes()


def _by_zero(stack: Stack, facts: ModelFacts) -> float:
    """The current layer and the next one, or as many weights as may stay gathered (stage3_max_live_parameters)."""
    shape = shape_of(facts)
    layer = stack.linear_bytes * shape.layers / facts.layers
    return max(2 * layer, min(stack.live, shape.total) * min(stack.linear_bytes, 2.0))


def _by_fsdp(stack: Stack, facts: ModelFacts) -> GatheredBytes:
    """FSDP2 receives a unit in one buffer and copies it out of there; in the forward pass, that buffer is freed after
    the next unit has arrived. FSDP1 uses the buffer itself. Both gather the next layer while one is differentiated, and
    both collect a unit's gradients in a buffer before they share them out.
    """
    shape, train = shape_of(facts), trained(stack, facts)
    layer = min(stack.linear_bytes - stack.scale_bytes, stack.dtype_bytes) * shape.layers / facts.layers
    root = stack.dtype_bytes * (shape.rest + train.copies)
    second = stack.sharding is Sharding.FSDP
    kept = (facts.layers - 1) * layer if not stack.reshards else 0.0
    start = 2 * root + 2 * layer if second else root + layer
    forward = root + (3 * layer if second else layer) + kept
    if stack.adapter is None:
        # The gradients of the head, and of the embedding, stay complete until the root is done.
        gradients = stack.dtype_bytes * (shape.head or shape.embedding)
        return GatheredBytes(
            start=start,
            forward=forward,
            loss=root + layer + kept,
            last_layer=root + gradients + 3 * layer + kept,
            first_layer=root + gradients + 3 * layer,
            embedding=(4 if facts.tied else 3) * root,
        )
    saved = stack.dtype_bytes * train.copies
    return GatheredBytes(
        start=start,
        forward=forward,
        loss=root + (layer if second else 0.0) + kept,
        last_layer=root + saved + 2 * layer + kept,
        first_layer=root + saved + layer,
        embedding=root + 2 * saved,
    )
