"""Whether a run fits its GPUs: an estimate per GPU with its parts, and a verdict with its margin. Pure; no torch.

docs/memory-counted.md has the formulas and their sources, docs/memory-evidence.md their errors against published
figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from runner.config.gpus import GpuKind
from runner.memory.activations import Activations, evaluation_activations, training_activations
from runner.memory.config import Reading, loads_all_weights, reading_of
from runner.memory.gathered import GatheredBytes, gathered
from runner.memory.sharding import sharers_of_weights
from runner.memory.stack import Stack
from runner.memory.weights import GIB, ResidentWeights, resident
from runner.types import ModelFacts

FITS_FACTOR = 1.25
"""FITS means that the estimate times this is within the card's memory."""
SHARDED_FITS_FACTOR = 1.25
"""The same if several cards share weights, gradients or the optimizer's state: 1 and the worst under-prediction seen of
such a run, but at least FITS_FACTOR. The worst is 24.1%, published by AnswerDotAI/fsdp_qlora: Llama 2 7B LoRA with
offloading, 10 x 2048 on two cards (docs/memory-evidence.md). tests/runner/test_memory_sharded.py fails if one is
worse."""
FAILS_FACTOR = 0.90
"""WON'T FIT means that the estimate times this is above the card's memory. This margin is the smaller one, since an
estimate that is too low is the more costly mistake."""
CONTEXT = 0.6 * GIB
"""CUDA's own, in addition to what torch allocates."""
SLACK = 0.05
"""The share of activations, logits and gradients that is added for memory that the allocator cannot use again."""


class Verdict(StrEnum):
    FITS = "FITS"
    UNSURE = "UNSURE"
    WONT_FIT = "WON'T FIT"
    UNKNOWN = "UNKNOWN"


@dataclass(frozen=True, slots=True)
class Parts:
    """Bytes on one GPU at the moment that needs the most."""

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    communication: int
    overhead: int

    @property
    def total(self) -> int:
        return sum(getattr(self, part.name) for part in fields(self))

    def largest_first(self) -> list[tuple[str, int]]:
        sizes = [(part.name, int(getattr(self, part.name))) for part in fields(self)]
        return sorted((size for size in sizes if size[1]), key=lambda size: -size[1])


class Evidence(StrEnum):
    """What the memory of one run says about that of another."""

    MEASURED = "measured"
    """It was the same."""
    SCALED = "scaled"
    """It had a little more or less to process at a time."""
    HAD_MORE = "had more"
    """It had as much or more to process at a time, and succeeded."""
    RAN_OUT = "ran out"
    """It had as little or less to process at a time, and ran out of memory."""
    AT_LEAST = "at least"
    """It did not come to its end, so it may need more than it has used."""


@dataclass(frozen=True, slots=True)
class MeasuredPeak:
    """What an earlier run has shown, which replaces the estimate."""

    evidence: Evidence
    run: str
    """Its key."""
    gpu: str
    """The card that it had."""
    tokens: str
    """How many tokens a GPU processed at a time: `4 x 4096 tokens`."""
    peak: int | None
    """Bytes that it used; None if only its end is known."""
    bytes: int | None
    """What follows for the run in question; None if that is no figure."""


@dataclass(frozen=True, slots=True)
class Estimate:
    verdict: Verdict
    gpu: GpuKind
    count: int
    parts: Parts | None = None
    """None if the verdict is UNKNOWN."""
    moment: str = ""
    """When it needs the most: `loading`, `training` or `evaluation`."""
    tokens: str = ""
    """How many tokens a GPU processes at a time, and why."""
    host: int = 0
    """Bytes of the machine's main memory that all GPUs together need for offloading."""
    reason: str = ""
    """Why it is unknown."""
    notes: tuple[str, ...] = ()
    """The assumptions."""
    measured: MeasuredPeak | None = None
    """What the verdict goes by in place of the parts, if an earlier run has shown it."""

    @property
    def needed(self) -> int | None:
        """Bytes on one GPU, as measured or otherwise as estimated; None if that is unknown."""
        if self.measured is not None and self.measured.bytes is not None:
            return self.measured.bytes
        return self.parts.total if self.parts else None

    @property
    def of_weights_alone(self) -> bool:
        """Whether nothing but the weights is counted, which are too many already."""
        return self.parts is not None and self.parts.total == self.parts.weights

    @property
    def usable(self) -> int:
        """Bytes of the card."""
        return int(self.gpu.usable_gib * GIB)


def estimate(
    config: Mapping[str, Any], facts: ModelFacts | None, gpu: GpuKind, count: int, longest_row: int | None = None
) -> Estimate:
    """Estimate the run of an Axolotl config on `count` cards. `longest_row`: tokens of the longest prepared row, if the
    dataset is prepared.
    """
    if facts is None:
        return Estimate(Verdict.UNKNOWN, gpu, count, reason="the shape of this base_model is unknown")
    kind = not_estimated(facts)
    reading = f"the memory of {kind} is not estimated" if kind else reading_of(config, facts, gpu, count, longest_row)
    if isinstance(reading, str):
        return _floor(config, facts, gpu, count, reading)
    return _judged(reading, facts, gpu, count)


def _judged(reading: Reading, facts: ModelFacts, gpu: GpuKind, count: int) -> Estimate:
    parts, moment, host = peak(reading.stack, facts)
    return Estimate(
        verdict=verdict_of(parts.total, gpu, sharded=reading.stack.sharded),
        gpu=gpu,
        count=count,
        parts=parts,
        moment=moment,
        tokens=reading.rows_from,
        host=host,
        notes=reading.notes,
    )


def verdict_of(total: int, gpu: GpuKind, *, sharded: bool = False) -> Verdict:
    usable = gpu.usable_gib * GIB
    if total * (SHARDED_FITS_FACTOR if sharded else FITS_FACTOR) <= usable:
        return Verdict.FITS
    return Verdict.WONT_FIT if total * FAILS_FACTOR > usable else Verdict.UNSURE


def not_estimated(facts: ModelFacts) -> str:
    """The kind of model, for people; empty if its memory is estimated."""
    if facts.unusual:
        return f"a model with {facts.unusual}"
    if facts.experts:
        return "a mixture of experts"
    return "a model that also reads images" if facts.vision else ""


def _floor(config: Mapping[str, Any], facts: ModelFacts, gpu: GpuKind, count: int, reason: str) -> Estimate:
    """An unknown estimate, unless the weights alone do not fit."""
    weights = int(loaded_weights(config, facts) / sharers_of_weights(config, count))
    if weights > gpu.usable_gib * GIB and loads_all_weights(config):
        parts = Parts(weights, 0, 0, 0, 0, 0, 0, 0)
        return Estimate(Verdict.WONT_FIT, gpu, count, parts, "loading", notes=(f"the weights alone; {reason}",))
    return Estimate(Verdict.UNKNOWN, gpu, count, reason=reason)


def loaded_weights(config: Mapping[str, Any], facts: ModelFacts) -> float:
    """Bytes of the weights. transformers has all experts of a layer in one tensor, which bitsandbytes leaves in 16 bit,
    unless Axolotl quantizes it (quantize_moe_experts) or each expert is a layer of its own.
    """
    each = 0.5 if config.get("load_in_4bit") else 1.0 if config.get("load_in_8bit") else 2.0
    quantized = config.get("quantize_moe_experts") or config.get("llama4_linearized_experts")
    experts = 0 if quantized else facts.layers * (facts.experts or 0) * 3 * facts.hidden * facts.ffn
    experts = min(experts, facts.parameters)
    return 2 * experts + each * (facts.parameters - experts)


# The moment that needs the most


def peak(stack: Stack, facts: ModelFacts) -> tuple[Parts, str, int]:
    """The parts at the moment that needs the most, that moment's name, and the bytes of main memory."""
    stays = resident(stack, facts)
    training = training_activations(stack, facts)
    gathers = gathered(stack, facts)
    moments = [(parts, "training") for parts in _training_moments(stack, stays, training, gathers)]
    if stack.loads_whole:
        moments.append((Parts(int(stays.loaded), 0, 0, 0, 0, 0, 0, int(CONTEXT)), "loading"))
    if stack.evaluation is not None:
        evaluated = evaluation_activations(stack, facts)
        # Axolotl's trainer frees the gradients before it evaluates; the optimizer's state stays.
        work, head = max(evaluated.work, evaluated.head), evaluated.head
        moments.append((_parts(stays, 0.0, gathers.start, evaluated.held + work), "evaluation"))
        moments.append((_parts(stays, 0.0, gathers.loss, evaluated.held + head, evaluated.logits), "evaluation"))
    parts, moment = max(moments, key=lambda one: one[0].total)
    return parts, moment, int(stays.host + training.host * stack.gpus)


def _training_moments(
    stack: Stack, stays: ResidentWeights, training: Activations, gathers: GatheredBytes
) -> Iterator[Parts]:
    before = stays.gradients if stack.accumulates else 0.0
    head = max(before, stays.head_gradients)
    # The forward pass, in its first layer and in its last.
    yield _parts(stays, before, gathers.start)
    yield _parts(stays, before, gathers.forward, training.held + training.forward)
    # The loss is differentiated: everything that the layers have saved is in memory.
    yield _parts(stays, head, gathers.loss, training.held + training.head, training.logits)
    # The last layer: the logits are freed.
    yield _parts(stays, head, gathers.last_layer, training.held + training.work)
    # The first layer: what the layers saved is freed, all gradients are in memory.
    yield _parts(stays, stays.gradients, gathers.first_layer, training.kept + training.work)
    # The embedding: its gradient is added to the head's if both are one matrix.
    yield _parts(stays, stays.gradients + stays.tied_gradient, gathers.embedding, training.kept)
    # The optimizer's step.
    yield _parts(stays, stays.gradients, gathers.step, step=stays.step)


def _parts(
    stays: ResidentWeights,
    gradients: float,
    gathers: float,
    activations: float = 0.0,
    logits: float = 0.0,
    *,
    step: float = 0.0,
) -> Parts:
    slack = SLACK * (gradients + activations + logits)
    return Parts(
        weights=int(stays.weights),
        adapters=int(stays.adapters),
        gradients=int(gradients),
        optimizer=int(stays.optimizer + step),
        activations=int(activations),
        logits=int(logits),
        communication=int(stays.communication + gathers),
        overhead=int(CONTEXT + slack),
    )
