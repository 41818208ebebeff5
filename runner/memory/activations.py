"""Bytes that exist while tokens are processed: those saved for the backward pass, one layer at work, the logits.

The factors per token were counted tensor by tensor in transformers 5 with PEFT (tests/runner/test_memory_counted.py
counts them again); docs/memory-counted.md says how.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from runner.memory.stack import Adapter, Batch, Loss, Offloading, Stack
from runner.types import ModelFacts


@dataclass(frozen=True, slots=True)
class PerToken:
    """Bytes per token, by the widths of a layer."""

    hidden: float
    query: float
    key: float
    """Of keys and of values together, per width of one of them."""
    ffn: float

    def __add__(self, other: PerToken) -> PerToken:
        return PerToken(
            self.hidden + other.hidden, self.query + other.query, self.key + other.key, self.ffn + other.ffn
        )

    def bytes(self, facts: ModelFacts) -> float:
        query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
        return self.hidden * facts.hidden + self.query * query + self.key * key + self.ffn * facts.ffn


@dataclass(frozen=True, slots=True)
class LayerCost:
    saved: PerToken
    """What one layer saves for the backward pass when nothing is recomputed."""
    work: PerToken
    """The peak, in addition to the layers' inputs, while one layer is recomputed and differentiated."""

    def __add__(self, other: LayerCost) -> LayerCost:
        return LayerCost(self.saved + other.saved, self.work + other.work)


FULL = LayerCost(PerToken(16, 4, 4, 8), PerToken(16, 4, 4, 12))
COMPILED = LayerCost(PerToken(8, 4, 4, 6), PerToken(4, 4, 4, 9))
ADAPTER = LayerCost(PerToken(18, 6, 4, 8), PerToken(24, 6, 4, 14))
ADAPTER_DROPOUT = LayerCost(PerToken(38, 10, 4, 12), PerToken(44, 10, 4, 22))
ADAPTER_16 = LayerCost(PerToken(12, 4, 4, 8), PerToken(10, 4, 4, 12))
ADAPTER_16_DROPOUT = LayerCost(PerToken(28, 8, 4, 10), PerToken(34, 8, 4, 12))
KERNELS = LayerCost(PerToken(12, 4, 4, 4), PerToken(10, 4, 4, 10))
KERNELS_DROPOUT = LayerCost(PerToken(20, 8, 4, 4), PerToken(18, 8, 4, 10))

NO_MLP = LayerCost(PerToken(-4, 0, 0, -2), PerToken(-12, 0, 0, -2))
NO_MLP_DROPOUT = LayerCost(PerToken(-12, 0, 0, -6), PerToken(-20, 0, 0, -10))
NO_MLP_16 = LayerCost(PerToken(-2, 0, 0, -2), PerToken(-2, 0, 0, 0))
NO_MLP_16_DROPOUT = LayerCost(PerToken(-8, 0, 0, -4), PerToken(-16, 0, 0, 0))
NO_ATTENTION = LayerCost(PerToken(-6, -2, 0, 0), PerToken(-6, -2, 0, 0))
NO_ATTENTION_DROPOUT = LayerCost(PerToken(-18, -6, 0, 0), PerToken(-18, -6, 0, 0))
NO_ATTENTION_16 = LayerCost(PerToken(-2, 0, 0, 0), PerToken(-1, 0, 0, 0))
NO_ATTENTION_16_DROPOUT = LayerCost(PerToken(-12, -4, 0, 0), PerToken(-12, -4, 0, 0))
"""What an adapter of only one half of each layer leaves out."""
ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj"})
MLP = frozenset({"gate_proj", "up_proj", "gate_up_proj", "down_proj"})

FUSED_NORM_FULL = PerToken(-8, 0, 0, 0)
FUSED_NORM_ADAPTER = PerToken(-4, 0, 0, 0)
FUSED_MLP = PerToken(0, 0, 0, -2)
INPUTS_OF_8BIT = PerToken(4, 2, 0, 2)
"""bitsandbytes saves each 8-bit matrix's input."""
OUTPUTS = {
    "q_proj": PerToken(0, 2, 0, 0),
    "k_proj": PerToken(0, 0, 2, 0),
    "v_proj": PerToken(0, 0, 2, 0),
    "o_proj": PerToken(2, 0, 0, 0),
    "gate_proj": PerToken(0, 0, 0, 2),
    "up_proj": PerToken(0, 0, 0, 2),
    "down_proj": PerToken(2, 0, 0, 0),
    "qkv_proj": PerToken(0, 2, 4, 0),
    "gate_up_proj": PerToken(0, 0, 0, 4),
}
"""DoRA saves each matrix's output before it is scaled (Axolotl's kernels: `combined`)."""

HEAD = 19
"""Bytes per token and unit of width while the last norm is differentiated."""
SCORES_SAVED, SCORES_WORK = 6, 10.5
"""Bytes per head and pair of tokens of eager attention."""


def layer_cost(stack: Stack) -> LayerCost:
    cost = _plain_cost(stack)
    if stack.compiled:
        return cost
    change = PerToken(0, 0, 0, 0)
    if stack.fused_norm:
        change += FUSED_NORM_FULL if stack.adapter is None else FUSED_NORM_ADAPTER
    if stack.fused_mlp and not (stack.adapter and stack.adapter.kernels):
        change += FUSED_MLP
    if stack.linear_bytes == 1:
        change += INPUTS_OF_8BIT
    if stack.adapter and stack.adapter.dora:
        for target in stack.adapter.targets:
            change += OUTPUTS.get(target, PerToken(0, 0, 0, 0))
    return LayerCost(cost.saved + change, cost.work + change)


def _plain_cost(stack: Stack) -> LayerCost:
    if stack.compiled:
        return COMPILED
    match stack.adapter:
        case None:
            return FULL
        case adapter if adapter.kernels:
            return KERNELS_DROPOUT if adapter.dropout else KERNELS
        case adapter:
            narrow = adapter.weight_bytes == 2 or stack.casts_adapter
            return _narrow_adapter_cost(adapter) if narrow else _adapter_cost(adapter)


def _adapter_cost(adapter: Adapter) -> LayerCost:
    cost = ADAPTER_DROPOUT if adapter.dropout else ADAPTER
    if not MLP.intersection(adapter.targets):
        cost += NO_MLP_DROPOUT if adapter.dropout else NO_MLP
    if not ATTENTION.intersection(adapter.targets):
        cost += NO_ATTENTION_DROPOUT if adapter.dropout else NO_ATTENTION
    return cost


def _narrow_adapter_cost(adapter: Adapter) -> LayerCost:
    """The cost of an adapter that computes in 16 bit."""
    cost = ADAPTER_16_DROPOUT if adapter.dropout else ADAPTER_16
    if not MLP.intersection(adapter.targets):
        cost += NO_MLP_16_DROPOUT if adapter.dropout else NO_MLP_16
    if not ATTENTION.intersection(adapter.targets):
        cost += NO_ATTENTION_16_DROPOUT if adapter.dropout else NO_ATTENTION_16
    return cost


@dataclass(frozen=True, slots=True)
class Activations:
    """Of one GPU, in bytes."""

    held: float
    """From the end of the forward pass until the backward pass has used them."""
    work: float
    """In addition to `held`, while a layer is differentiated."""
    head: float
    """In addition to `held`, while the loss is computed, without the logits."""
    logits: float
    host: float
    """In the machine's main memory."""
    forward: float = 0.0
    """In addition to what is saved, while the last layer runs forward."""
    kept: float = 0.0
    """At the end of the backward pass, although it is no longer needed."""


def training_activations(stack: Stack, facts: ModelFacts) -> Activations:
    batch, cost, layers = stack.training, layer_cost(stack), facts.layers
    wider = stack.dtype_bytes / 2
    tokens = batch.tokens
    inputs = stack.dtype_bytes * tokens * facts.hidden
    saved = wider * cost.saved.bytes(facts) * tokens + _scores(stack, facts, SCORES_SAVED)
    work = wider * cost.work.bytes(facts) * tokens + _scores(stack, facts, SCORES_WORK) + _largest_matrix(stack, facts)
    head = wider * HEAD * facts.hidden * tokens
    mask = stack.dtype_bytes * batch.rows * batch.length**2 if stack.mask else 0.0
    logits = logits_in_training(stack, facts)
    match stack.offloading:
        case Offloading.ALL:  # one layer's are being moved out while the next layer computes
            return Activations(2 * saved + mask, max(work, head), 6 / HEAD * head, logits, layers * saved)
        case Offloading.INPUTS:
            return Activations(2 * inputs + mask, work, 6 / HEAD * head, logits, layers * inputs)
    if stack.checkpointing:
        kept = 2 * layers * inputs if stack.keeps_inputs else 0.0
        forward = _forward_work(stack, facts, batch)
        return Activations(layers * inputs + mask, work, 6 / HEAD * head, logits, 0.0, forward, kept)
    return Activations(layers * saved + mask, head + _largest_matrix(stack, facts), 6 / HEAD * head, logits, 0.0)


def evaluation_activations(stack: Stack, facts: ModelFacts) -> Activations:
    """Without gradients: one layer at a time, then the logits."""
    assert stack.evaluation is not None
    batch = stack.evaluation
    work = _forward_work(stack, facts, batch)
    if stack.eager_attention:
        work += facts.heads * batch.rows * batch.length**2 * 10
    return Activations(0.0, work, 6 * facts.hidden * batch.tokens, logits_in_evaluation(stack, facts), 0.0)


def _forward_work(stack: Stack, facts: ModelFacts, batch: Batch) -> float:
    """Without gradients: a layer's inputs, its norm in fp32, and the MLP's two products."""
    width = PerToken(8, 2, 4, 6).bytes(facts)
    return stack.dtype_bytes / 2 * width * batch.tokens + _largest_matrix(stack, facts)


def logits_in_training(stack: Stack, facts: ModelFacts) -> float:
    """At the start of the backward pass, when they need the most memory."""
    tokens, vocabulary, hidden = stack.training.tokens, facts.vocabulary, facts.hidden
    one = tokens * vocabulary
    match stack.loss:
        case Loss.PLAIN:  # fp32: the log-softmax, its gradient, and the gradient of the logits
            return 12.0 * one
        case Loss.UNCAST:
            return 6.0 * one
        case Loss.CHUNKED:  # 16 bit: the logits, their gradient in chunks, and the chunks joined
            return (6 + 4 / stack.chunks) * one
        case Loss.CHUNKED_HEAD:
            return (2 + 4 / stack.chunks) * one
        case Loss.LIGER:  # the fp32 copy that becomes the gradient, and 16 bit before and after
            return 8.0 * one
        case Loss.FUSED:
            chunk = 1 << math.ceil(math.log2(max(1.0, tokens / math.ceil(vocabulary / hidden))))
            return 4.0 * min(chunk, tokens) * vocabulary + 2.0 * tokens * hidden
        case Loss.CUT:
            return 4.0 * tokens * hidden


def logits_in_evaluation(stack: Stack, facts: ModelFacts) -> float:
    assert stack.evaluation is not None
    tokens = stack.evaluation.tokens
    match stack.loss:
        case Loss.CUT:
            return 2.0 * tokens * facts.hidden
        case Loss.CHUNKED | Loss.CHUNKED_HEAD:
            return (2 + 8 / stack.chunks) * tokens * facts.vocabulary
        case Loss.LIGER:
            return 6.0 * tokens * facts.vocabulary
        case _:  # 16 bit, fp32 and the log-softmax. Liger's fused loss creates logits in evaluation
            return 10.0 * tokens * facts.vocabulary


def _scores(stack: Stack, facts: ModelFacts, per_pair: float) -> float:
    batch: Batch = stack.training
    return per_pair * facts.heads * batch.rows * batch.length**2 if stack.eager_attention else 0.0


def _largest_matrix(stack: Stack, facts: ModelFacts) -> float:
    """The largest matrix, converted from fewer bits for its multiplication; or its gradient before it is added up."""
    matrix = stack.dtype_bytes * facts.hidden * facts.ffn
    dora = 4 * facts.hidden * facts.ffn if stack.adapter and stack.adapter.dora else 0
    if stack.linear_bytes == 1:
        return 2 * matrix + dora  # a copy in 16 bit, and that copy scaled
    if stack.quantized or stack.adapter is None:
        return matrix + dora
    return dora
