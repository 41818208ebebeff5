"""The size of an optimizer's state per trained weight, by the optimizer's name in Axolotl 0.21 and transformers 5.

Read from the optimizers' own source: how many tensors of a weight's shape they store, and in which precision.
"""

from __future__ import annotations

from dataclasses import dataclass

BLOCKWISE_8BIT = 1 + 4 / 256
"""Bytes per element: one, and an fp32 scale per block of 256 (bitsandbytes, torchao)."""
BLOCKWISE_4BIT = 0.5 + 4 / 128
"""Bytes per element: half a byte, and an fp32 scale per block of 128 (torchao)."""


@dataclass(frozen=True, slots=True)
class OptimizerSize:
    """The state of one optimizer."""

    states: float
    """Tensors of the weight's shape."""
    width: float | None = None
    """Bytes of each element; None means the precision of the weight."""
    extra: float = 0.0
    """Additional bytes per weight, whatever the precision."""
    embeddings_32bit: bool = False
    """transformers keeps the state of trained input embeddings in fp32 for bitsandbytes' 8-bit optimizers."""
    paged: bool = False
    """bitsandbytes pages the state out to the machine's memory when the GPU is full."""
    step_copies: float = 0.0
    """Tensors of the weight's size that exist while a step is taken (torch's foreach loops)."""
    known: bool = True

    def bytes_per_weight(self, weight_bytes: float) -> float:
        return self.states * (weight_bytes if self.width is None else self.width) + self.extra

    def bytes_per_embedding(self, weight_bytes: float) -> float:
        """Bytes of state per weight of a trained input embedding."""
        return self.states * 4 if self.embeddings_32bit else self.bytes_per_weight(weight_bytes)


_ADAM = OptimizerSize(states=2)
_BNB_ADAM_8 = OptimizerSize(states=2, width=BLOCKWISE_8BIT, embeddings_32bit=True)
_TORCHAO_ADAM_8 = OptimizerSize(states=2, width=BLOCKWISE_8BIT)
_TORCHAO_ADAM_4 = OptimizerSize(states=2, width=BLOCKWISE_4BIT)
_ADEMAMIX_8 = OptimizerSize(states=3, width=BLOCKWISE_8BIT, embeddings_32bit=True)
_FACTORED = OptimizerSize(states=0, extra=0.02)
"""A row and a column per matrix."""

OPTIMIZERS = {
    "adamw_torch": OptimizerSize(states=2, step_copies=1),
    "adamw_torch_fused": _ADAM,
    "adamw_torch_8bit": _TORCHAO_ADAM_8,
    "adamw_torch_4bit": _TORCHAO_ADAM_4,
    "ao_adamw_8bit": _TORCHAO_ADAM_8,
    "ao_adamw_4bit": _TORCHAO_ADAM_4,
    "ao_adamw_fp8": OptimizerSize(states=2, width=BLOCKWISE_8BIT),
    "adamw_bnb_8bit": _BNB_ADAM_8,
    "adamw_8bit": _BNB_ADAM_8,
    "paged_adamw_32bit": OptimizerSize(states=2, width=4, paged=True),
    "paged_adamw_8bit": OptimizerSize(states=2, width=BLOCKWISE_8BIT, embeddings_32bit=True, paged=True),
    "optimi_adamw": OptimizerSize(states=3),  # the third is Kahan summation's, for 16-bit weights
    "adopt_adamw": OptimizerSize(states=2, step_copies=1),
    "adamc": OptimizerSize(states=2, step_copies=1),
    "stable_adamw": _ADAM,
    "schedule_free_adamw": OptimizerSize(states=2, step_copies=1),
    "ademamix": OptimizerSize(states=3, width=4),
    "ademamix_8bit": _ADEMAMIX_8,
    "paged_ademamix_32bit": OptimizerSize(states=3, width=4, paged=True),
    "paged_ademamix_8bit": OptimizerSize(states=3, width=BLOCKWISE_8BIT, embeddings_32bit=True, paged=True),
    "lion_32bit": OptimizerSize(states=1, width=4),
    "lion_8bit": OptimizerSize(states=1, width=BLOCKWISE_8BIT, embeddings_32bit=True),
    "paged_lion_32bit": OptimizerSize(states=1, width=4, paged=True),
    "paged_lion_8bit": OptimizerSize(states=1, width=BLOCKWISE_8BIT, embeddings_32bit=True, paged=True),
    "rmsprop": OptimizerSize(states=1, step_copies=1),
    "rmsprop_bnb": OptimizerSize(states=1, width=4),
    "rmsprop_bnb_32bit": OptimizerSize(states=1, width=4),
    "rmsprop_bnb_8bit": OptimizerSize(states=1, width=BLOCKWISE_8BIT, embeddings_32bit=True),
    "adagrad": OptimizerSize(states=1, step_copies=1),
    "sgd": OptimizerSize(states=0),
    "adafactor": _FACTORED,
    "came_pytorch": OptimizerSize(states=1, extra=0.02),
    "muon": OptimizerSize(states=1),  # its own Adam for embeddings and norms is counted as this
}

DEFAULT = "adamw_torch_fused"
"""Axolotl's default, if a config names none."""


def optimizer_size(name: str) -> OptimizerSize:
    """An optimizer that is not in the list counts as AdamW; `known` then says so."""
    return OPTIMIZERS.get(name, OptimizerSize(states=2, known=False))
