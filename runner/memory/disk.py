"""The bytes of what a run writes: one checkpoint, and the model at its end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.config.gpus import GpuKind
from runner.memory.config import NOT_MODELLED, reading_of
from runner.memory.weights import saved
from runner.types import ModelFacts


@dataclass(frozen=True, slots=True)
class SavedBytes:
    """Of all ranks together."""

    model: int
    """The trained weights: an adapter, or the complete model."""
    checkpoint: int
    """With the optimizer's state."""


def saved_bytes(config: Mapping[str, Any], facts: ModelFacts, gpu: GpuKind, count: int) -> SavedBytes | None:
    """About as many as these; None where the method is not known well enough.

    Keys that memory cannot be estimated with are left out: what is saved is at most what it is without them.
    """
    if config.get("relora"):
        config = {key: value for key, value in config.items() if key not in ("adapter", "relora")}
    plain = {key: value for key, value in config.items() if key not in NOT_MODELLED}
    reading = reading_of(plain, facts, gpu, count, None)
    if isinstance(reading, str):
        return None
    model, state = saved(reading.stack, facts)
    return SavedBytes(round(model), round(model if config.get("save_only_model") else model + state))
