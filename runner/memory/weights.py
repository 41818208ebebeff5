"""Bytes in memory while a model is loaded: weights, adapters, gradients, optimizer state, buffers between GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from runner.memory.stack import DEEPSPEED, Adapter, Sharding, Stack
from runner.types import ModelFacts

GIB = 2**30
NCCL = 0.5 * GIB
"""NCCL's own buffers, with several GPUs."""
MASTER_BYTES = 4.0
"""Of a trained weight in fp32."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The number of a model's weights, by where they are."""

    layers: int
    """In the matrices (and biases) of all layers."""
    embedding: int
    """In one embedding matrix."""
    head: int
    """In the output head; 0 if it is the embedding."""
    norms: int

    @property
    def rest(self) -> int:
        """The weights that are never quantized."""
        return self.embedding + self.head + self.norms

    @property
    def total(self) -> int:
        return self.layers + self.rest


def shape_of(facts: ModelFacts) -> Shape:
    embedding = facts.vocabulary * facts.hidden
    head = 0 if facts.tied else embedding
    norms = (2 * facts.layers + 1) * facts.hidden
    return Shape(facts.parameters - embedding - head - norms, embedding, head, norms)


@dataclass(frozen=True, slots=True)
class TrainedParameters:
    """The number of trained weights, by how their state is stored."""

    adapter: int = 0
    matrices: int = 0
    """Complete matrices and norms of the model itself, without the embedding."""
    embedding: int = 0
    copies: int = 0
    """Those in `matrices` and `embedding` that are trained copies of a frozen original (modules_to_save)."""

    @property
    def total(self) -> int:
        return self.adapter + self.matrices + self.embedding


def trained(stack: Stack, facts: ModelFacts) -> TrainedParameters:
    shape = shape_of(facts)
    if stack.adapter is None:
        return TrainedParameters(matrices=shape.layers + shape.head + shape.norms, embedding=shape.embedding)
    head = shape.embedding if "lm_head" in stack.adapter.saved_modules else 0  # saving it unties it
    embedding = shape.embedding if "embed_tokens" in stack.adapter.saved_modules else 0
    return TrainedParameters(adapter_weights(stack.adapter, facts), head, embedding, head + embedding)


def adapter_weights(adapter: Adapter, facts: ModelFacts) -> int:
    """Weights of a LoRA adapter: rank x (in + out) per matrix; DoRA adds one per output."""
    query, key = facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim
    sizes = {
        "q_proj": (facts.hidden, query),
        "k_proj": (facts.hidden, key),
        "v_proj": (facts.hidden, key),
        "qkv_proj": (facts.hidden, query + 2 * key),
        "o_proj": (query, facts.hidden),
        "gate_proj": (facts.hidden, facts.ffn),
        "up_proj": (facts.hidden, facts.ffn),
        "gate_up_proj": (facts.hidden, 2 * facts.ffn),
        "down_proj": (facts.ffn, facts.hidden),
    }
    once = {"embed_tokens": (facts.vocabulary, facts.hidden), "lm_head": (facts.hidden, facts.vocabulary)}
    layer = sum(_pair(adapter, *sizes[name]) for name in adapter.targets if name in sizes)
    return facts.layers * layer + sum(_pair(adapter, *once[name]) for name in adapter.targets if name in once)


ADAPTABLE = ("q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj",
             "embed_tokens", "lm_head")  # fmt: skip
"""Names of matrices whose size is known."""


def _pair(adapter: Adapter, inputs: int, outputs: int) -> int:
    return adapter.rank * (inputs + outputs) + (outputs if adapter.dora else 0)


@dataclass(frozen=True, slots=True)
class ResidentWeights:
    """Of one GPU, in bytes; `host` is of the machine."""

    weights: float
    loaded: float
    """The weights of the whole model, before anything is sharded or moved away."""
    adapters: float
    gradients: float
    """All of them, at the end of a backward pass."""
    head_gradients: float
    """Those that exist when the backward pass has just passed the head."""
    tied_gradient: float
    """In addition to `gradients`, before it is added up: of an embedding that is also the head."""
    optimizer: float
    step: float
    """In addition to all of the above, while the optimizer steps."""
    communication: float
    """NCCL's buffers and those in which gradients are reduced; gathered.py has what is gathered."""
    host: float


def resident(stack: Stack, facts: ModelFacts) -> ResidentWeights:
    shape, train = shape_of(facts), trained(stack, facts)
    loaded = _model_weights(stack, shape)
    sizes = _trained_sizes(stack, train)
    by_stage = _stage(stack.sharding)
    share = stack.shards
    weight_share, gradient_share = (share if by_stage >= 3 else 1), (share if by_stage >= 2 else 1)
    optimizer_share = share if by_stage >= 1 else 1
    scales = stack.scale_bytes * shape.layers
    weights, adapters = (loaded - scales) / weight_share, sizes.weights / weight_share
    gradients, optimizer = sizes.gradients / gradient_share, sizes.optimizer / optimizer_share
    host = 0.0
    if stack.offload_weights:
        host += (weights + adapters) * stack.gpus
        weights = adapters = 0.0
    weights += scales  # on each GPU
    step = sizes.step / optimizer_share
    if stack.offload_optimizer:
        host += (optimizer + sizes.gradients / optimizer_share) * stack.gpus
        optimizer = step = 0.0
        if by_stage >= 2:
            gradients = 0.0  # each is moved to main memory as soon as it is reduced
    elif stack.optimizer.paged:
        host += optimizer * stack.gpus
        optimizer = 0.0
    head = min(gradients, sizes.head_gradients / gradient_share)
    whole = stack.sharding not in (Sharding.FSDP, Sharding.FSDP1)  # FSDP's are in gathered.py
    tied = head if facts.tied and stack.adapter is None and whole else 0.0
    exchanged = _communication(stack, sizes)
    return ResidentWeights(weights, loaded, adapters, gradients, head, tied, optimizer, step, exchanged, host)


def saved(stack: Stack, facts: ModelFacts) -> tuple[float, float]:
    """What a checkpoint has of all GPUs together: the bytes of the trained weights, and of the optimizer's state."""
    sizes = _trained_sizes(stack, trained(stack, facts))
    return sizes.weights if stack.adapter else _model_weights(stack, shape_of(facts)), sizes.optimizer


def _model_weights(stack: Stack, shape: Shape) -> float:
    if stack.fp32_masters:
        return MASTER_BYTES * shape.total
    inside = stack.linear_bytes * shape.layers + stack.dtype_bytes * shape.norms
    return inside + stack.embedding_bytes * (shape.embedding + shape.head)


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Bytes of the trained weights, before any sharding."""

    weights: float
    """Of adapters and trained copies; the weights of a full fine-tune count as the model's."""
    gradients: float
    head_gradients: float
    optimizer: float
    step: float


def _trained_sizes(stack: Stack, train: TrainedParameters) -> _Sizes:
    adapter_bytes = float(stack.adapter.weight_bytes) if stack.adapter else 0.0
    matrix_bytes, embedding_bytes = float(stack.dtype_bytes), float(stack.embedding_bytes)
    if stack.fp32_masters:
        matrix_bytes = embedding_bytes = MASTER_BYTES
    if stack.sharding in DEEPSPEED:
        adapter_bytes = min(adapter_bytes, 2.0)  # DeepSpeed casts fp32 weights; its fp32 copy counts as the optimizer's
        embedding_bytes = matrix_bytes
    weights = adapter_bytes * train.adapter + matrix_bytes * train.copies
    gradients = adapter_bytes * train.adapter + matrix_bytes * train.matrices + embedding_bytes * train.embedding
    optimizer, step = _optimizer_sizes(stack, train, adapter_bytes, matrix_bytes, embedding_bytes)
    head = matrix_bytes * train.embedding if train.matrices else 0.0
    return _Sizes(weights, gradients, head, optimizer, step)


def _optimizer_sizes(
    stack: Stack, train: TrainedParameters, adapter_bytes: float, matrix_bytes: float, embedding_bytes: float
) -> tuple[float, float]:
    """The state, and the additional bytes during a step."""
    kind = stack.optimizer
    if stack.sharding in DEEPSPEED:
        # DeepSpeed steps on an fp32 copy of the weights, with the gradients in fp32 (its memory page: 16 bytes).
        return (kind.bytes_per_weight(4) + 4) * train.total, 4.0 * train.total
    state = (
        kind.bytes_per_weight(adapter_bytes) * train.adapter
        + kind.bytes_per_weight(matrix_bytes) * train.matrices
        + kind.bytes_per_embedding(embedding_bytes) * train.embedding
    )
    weights = adapter_bytes * train.adapter + matrix_bytes * train.matrices + embedding_bytes * train.embedding
    return state, kind.step_copies * weights


def _communication(stack: Stack, sizes: _Sizes) -> float:
    nccl = NCCL if stack.gpus > 1 else 0.0
    match stack.sharding:
        case Sharding.NONE:  # DDP's buckets are a second copy of the gradients (gradient_as_bucket_view is off)
            return nccl + (sizes.gradients if stack.gpus > 1 else 0.0)
        case Sharding.ZERO1 | Sharding.ZERO2 | Sharding.ZERO3:
            return nccl + _reduce_buffers(stack, sizes)
        case Sharding.FSDP | Sharding.FSDP1:
            return nccl


def _reduce_buffers(stack: Stack, sizes: _Sizes) -> float:
    """DeepSpeed allocates them in full, however little there is to reduce."""
    return 2.0 * stack.buckets * (stack.bucket or 0) if sizes.gradients else 0.0


def _stage(sharding: Sharding) -> int:
    """What is shared: 1 the optimizer's state, 2 also gradients, 3 also weights."""
    match sharding:
        case Sharding.NONE:
            return 0
        case Sharding.ZERO1:
            return 1
        case Sharding.ZERO2:
            return 2
        case _:
            return 3
