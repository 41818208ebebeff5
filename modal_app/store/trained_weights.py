"""What a run leaves once it has trained: an adapter or a complete model. This is the only place that decides it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class TrainedWeights(StrEnum):
    ADAPTER = "adapter"
    """It is loaded together with its base model."""
    MODEL = "model"
    """It is loaded on its own: a full fine-tune, or adapters that were merged during training (ReLoRA)."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """The names of the files with the weights."""
        stems = ("adapter_model",) if self is TrainedWeights.ADAPTER else ("model", "pytorch_model")
        return tuple(f"{stem}*.{suffix}" for stem in stems for suffix in ("safetensors", "bin"))

    @property
    def config_file(self) -> str:
        """The file that is always next to the weights."""
        return "adapter_config.json" if self is TrainedWeights.ADAPTER else "config.json"


def weights_left_by(config: Mapping[str, Any]) -> TrainedWeights:
    """`config`: a run's keyed Axolotl config.

    >>> weights_left_by({"adapter": "lora"}), weights_left_by({"adapter": "lora", "relora": True})
    (<TrainedWeights.ADAPTER: 'adapter'>, <TrainedWeights.MODEL: 'model'>)
    """
    is_adapter = bool(config.get("adapter")) and not config.get("relora")
    return TrainedWeights.ADAPTER if is_adapter else TrainedWeights.MODEL
