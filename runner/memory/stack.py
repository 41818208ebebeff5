"""How a run trains, as far as its memory depends on it: the input of the estimate."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from runner.memory.optimizers import DEFAULT, OPTIMIZERS, OptimizerSize

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""The matrices of a layer, by the names that most architectures give them."""

NF4_PACKED = 0.5
NF4_DOUBLE = NF4_PACKED + 1 / 64 + 4 / (64 * 256)
"""Bytes per weight: four bits, an 8-bit scale per block of 64, an fp32 scale per 256 of those (bitsandbytes)."""
NF4_SINGLE = NF4_PACKED + 4 / 64


class Loss(StrEnum):
    """How the loss is computed from the last hidden states."""

    PLAIN = "plain"
    UNCAST = "uncast"
    """As plain, but never in fp32: older code of some models. Not in Axolotl."""
    CHUNKED = "chunked"
    """Axolotl's chunked_cross_entropy: all logits in 16 bit, one chunk at a time in fp32."""
    CHUNKED_HEAD = "chunked head"
    """The head, too, is applied chunk by chunk. In torchtune, not in Axolotl."""
    LIGER = "liger"
    """Liger's cross entropy: the gradient overwrites the logits."""
    FUSED = "fused"
    """Liger's fused linear cross entropy: no logits in training, but logits in evaluation."""
    CUT = "cut"
    """Cut cross entropy: never any logits."""


class Sharding(StrEnum):
    """What several GPUs share."""

    NONE = "none"
    """Each has everything (DDP); always so for one GPU."""
    ZERO1 = "zero1"
    ZERO2 = "zero2"
    ZERO3 = "zero3"
    FSDP = "fsdp"
    """PyTorch's second, fully_shard: the one that Axolotl 0.21 uses."""
    FSDP1 = "fsdp1"
    """PyTorch's first, FullyShardedDataParallel. Not in Axolotl; most published figures are of this one."""


DEEPSPEED = (Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3)


class Offloading(StrEnum):
    """Which activations are in the machine's main memory between forward and backward pass."""

    NONE = "none"
    INPUTS = "inputs"
    """Each layer's input; the rest is recomputed."""
    ALL = "all"
    """Everything that a layer saves; nothing is recomputed."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A low-rank adapter."""

    rank: int
    targets: tuple[str, ...] = LINEAR
    dropout: bool = False
    dora: bool = False
    kernels: bool = False
    """Axolotl's fused LoRA kernels, which save less for the backward pass."""
    weight_bytes: int = 4
    """PEFT stores adapters in fp32 by default."""
    saved_modules: tuple[str, ...] = ()
    """Modules that are trained in full, next to the adapter (lora_modules_to_save)."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one GPU processes at a time."""

    rows: int
    length: int
    """Tokens of a row, padding included."""

    @property
    def tokens(self) -> int:
        return self.rows * self.length


@dataclass(frozen=True, slots=True)
class Stack:
    """A run's method and switches. The defaults are those of a plain full fine-tune in bf16."""

    training: Batch
    evaluation: Batch | None = None
    """None if nothing is evaluated."""
    linear_bytes: float = 2.0
    """Per weight of the layers: 2 in 16 bit, 1 in 8 bit, about 0.5 in 4 bit."""
    dtype_bytes: int = 2
    """Of computed values, and of weights that are not quantized."""
    embedding_bytes: int = 2
    adapter: Adapter | None = None
    optimizer: OptimizerSize = OPTIMIZERS[DEFAULT]
    accumulates: bool = False
    """Gradients of earlier micro batches are in memory while a later one runs."""
    checkpointing: bool = False
    offloading: Offloading = Offloading.NONE
    loss: Loss = Loss.PLAIN
    chunks: int = 8
    eager_attention: bool = False
    """Attention that stores the scores of every token against every other."""
    mask: bool = False
    """A full mask per row, as sdpa needs for packed rows."""
    fused_norm: bool = False
    fused_mlp: bool = False
    compiled: bool = False
    gpus: int = 1
    shards: int = 1
    """The number of GPUs that share one copy of what is sharded."""
    sharding: Sharding = Sharding.NONE
    reshards: bool = True
    """Gathered weights are freed after the forward pass."""
    fp32_masters: bool = False
    """FSDP has the trained weights in fp32, and gathers them in 16 bit. Axolotl leaves them in 16 bit."""
    casts_adapter: bool = False
    """FSDP gathers the adapter's fp32 weights in 16 bit, so that it computes in 16 bit."""
    loads_whole: bool = False
    """Each GPU loads all weights before FSDP shards them."""
    keeps_inputs: bool = False
    """FSDP1 around frozen weights with reentrant checkpointing: until the backward pass ends, the input of each layer
    that it has passed stays in memory, with its gradient. Not in Axolotl."""
    offload_optimizer: bool = False
    offload_weights: bool = False
    bucket: int | None = None
    """Elements of the buffer in which gradients are reduced; None means the library's own choice."""
    buckets: int = 1
    live: int = 0
    """Weights that ZeRO-3 leaves gathered since they are needed again soon."""

    @property
    def sharded(self) -> bool:
        """Whether several GPUs share anything."""
        return self.shards > 1 and self.sharding is not Sharding.NONE

    @property
    def quantized(self) -> bool:
        return self.linear_bytes < 2

    @property
    def scale_bytes(self) -> float:
        """The part of `linear_bytes` that is the scales of 4-bit blocks: not weights, so never sharded or gathered."""
        return self.linear_bytes - NF4_PACKED if self.linear_bytes < 1 else 0.0
