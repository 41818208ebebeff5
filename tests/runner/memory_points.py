"""Peaks of GPU memory that others have measured and published, each with the setup it was measured in."""

from __future__ import annotations

from dataclasses import dataclass

from runner.memory import CONTEXT, peak
from runner.memory_stack import NF4_DOUBLE, NF4_SINGLE, Adapter, Batch, Loss, Offloading, Sharding, Stack
from runner.types import ModelFacts

GIB, GB = 2**30, 10**9

TORCHTUNE = "https://github.com/pytorch/torchtune/blob/main/README.md"
QWEN = "https://github.com/QwenLM/Qwen/blob/main/README.md#profiling-of-memory-and-speed"


@dataclass(frozen=True)
class Point:
    name: str
    setup: str
    stack: Stack
    facts: ModelFacts
    published: float
    """In units of `unit` bytes."""
    source: str
    unit: int = GIB
    whole_card: bool = False
    """The figure is what the card shows, CUDA's own memory included; else what torch allocated."""

    @property
    def estimated(self) -> float:
        parts, _, _ = peak(self.stack, self.facts)
        return (parts.total - (0 if self.whole_card else CONTEXT)) / self.unit

    @property
    def error(self) -> float:
        return self.estimated / self.published - 1


def model(
    hidden: int, layers: int, heads: int, kv_heads: int, head_dim: int, ffn: int, vocabulary: int, *, tied: bool = False
) -> ModelFacts:
    """The facts of a dense model, its weights counted from its shape."""
    query, key = heads * head_dim, kv_heads * head_dim
    matrices = layers * (2 * hidden * query + 2 * hidden * key + 3 * hidden * ffn)
    embeddings = vocabulary * hidden * (1 if tied else 2)
    return ModelFacts(
        base_model="of-a-test",
        parameters=matrices + embeddings + (2 * layers + 1) * hidden,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=ffn,
        vocabulary=vocabulary,
        tied=tied,
        context=131072,
        source="the model's config.json",
    )


LLAMA_8B = model(4096, 32, 32, 8, 128, 14336, 128256)
LLAMA_3B = model(3072, 28, 24, 8, 128, 8192, 128256, tied=True)
LLAMA_70B = model(8192, 80, 64, 8, 128, 28672, 128256)
QWEN_14B = model(5120, 40, 40, 40, 128, 13696, 152064)

_RANK_8 = Adapter(rank=8, weight_bytes=2)
_LENGTHS = (256, 512, 1024, 2048, 4096, 8192)


def _torchtune_8b(linear_bytes: float) -> Stack:
    return Stack(
        Batch(2, 2048),
        adapter=_RANK_8,
        linear_bytes=linear_bytes,
        checkpointing=True,
        loss=Loss.CHUNKED_HEAD,
        compiled=True,
    )


def _torchtune_3b_adapter(linear_bytes: float) -> Stack:
    return Stack(
        Batch(2, 4096),
        adapter=_RANK_8,
        linear_bytes=linear_bytes,
        checkpointing=True,
        offloading=Offloading.INPUTS,
        loss=Loss.CHUNKED_HEAD,
        compiled=True,
    )


def _qwen_lora(length: int) -> Stack:
    return Stack(Batch(1, length), adapter=Adapter(rank=64, dropout=True), checkpointing=True, accumulates=True)


def _qwen_qlora(length: int) -> Stack:
    """finetune/finetune_qlora_single_gpu.sh and ds_config_zero2.json of the same repository: fp16 under DeepSpeed."""
    return Stack(
        Batch(1, length),
        adapter=Adapter(rank=64, dropout=True),
        linear_bytes=NF4_SINGLE,
        checkpointing=True,
        accumulates=True,
        loss=Loss.UNCAST,
        sharding=Sharding.ZERO2,
        bucket=200_000_000,
        buckets=2,
    )


FITTED = (
    Point("a", "Llama 3.1 8B LoRA r8, 2 x 2048", _torchtune_8b(2), LLAMA_8B, 16.2, TORCHTUNE),
    Point("b", "Llama 3.1 8B QLoRA r8, 2 x 2048", _torchtune_8b(NF4_DOUBLE), LLAMA_8B, 7.4, TORCHTUNE),
    Point("c", "Llama 3.2 3B full bf16, 2 x 4096", Stack(Batch(2, 4096)), LLAMA_3B, 60.0, TORCHTUNE),
    Point(
        "d",
        "the same, compiled, chunked loss",
        Stack(Batch(2, 4096), loss=Loss.CHUNKED_HEAD, compiled=True),
        LLAMA_3B,
        42.9,
        TORCHTUNE,
    ),
    Point(
        "e",
        "the same, checkpointing",
        Stack(Batch(2, 4096), loss=Loss.CHUNKED_HEAD, compiled=True, checkpointing=True),
        LLAMA_3B,
        24.9,
        TORCHTUNE,
    ),
    Point(
        "f", "Llama 3.2 3B LoRA, activations offloaded, 2 x 4096", _torchtune_3b_adapter(2), LLAMA_3B, 8.5, TORCHTUNE
    ),
    Point("g", "the same, QLoRA", _torchtune_3b_adapter(NF4_DOUBLE), LLAMA_3B, 4.6, TORCHTUNE),
    Point(
        "h",
        "Llama 3.1 70B LoRA r16, FSDP over 8, 2 x 2048",
        Stack(
            Batch(2, 2048),
            adapter=Adapter(rank=16, weight_bytes=2),
            checkpointing=True,
            loss=Loss.CHUNKED_HEAD,
            compiled=True,
            gpus=8,
            shards=8,
            sharding=Sharding.FSDP,
        ),
        LLAMA_70B,
        27.6,
        TORCHTUNE,
    ),
    *(
        Point("i", f"Qwen 14B LoRA r64, 1 x {length}", _qwen_lora(length), QWEN_14B, figure, QWEN, GB, whole_card=True)
        for length, figure in zip(_LENGTHS, (34.6, 35.1, 35.3, 37.4, 42.5, 55.2), strict=True)
    ),
    *(
        Point(
            "j",
            f"Qwen 14B int4 LoRA r64, 1 x {length}",
            _qwen_qlora(length),
            QWEN_14B,
            figure,
            QWEN,
            GB,
            whole_card=True,
        )
        for length, figure in zip(_LENGTHS, (18.7, 18.4, 18.9, 19.9, 23.0, 27.9), strict=True)
    ),
)
"""Known while the formulas were written, so that agreement is a fit."""
