"""What the rules look at: one run's config, its GPUs, its model, its rows, and what follows from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from modal_app.store.facts import DataManifest
from runner.cost.length import data_ranks
from runner.preflight.data import Steps, datasets_of, steps_of
from runner.preflight.memory import facts_for
from runner.preflight.values import number
from runner.types import Experiment, ModelFacts

ADAPTERS = ("lora", "qlora")


@dataclass(frozen=True)
class RunFacts:
    """All values in the config are of their types and in their ranges: rules are only asked when nothing else is wrong.

    The facts that take time to find are found when the first rule asks for them.
    """

    experiment: Experiment
    prepared: DataManifest = field(default_factory=DataManifest)
    """Of the run's dataset; nothing is known in it until the dataset is prepared."""

    @property
    def axolotl(self) -> Mapping[str, Any]:
        return self.experiment.axolotl

    @cached_property
    def model(self) -> ModelFacts | None:
        return facts_for(self.experiment)

    @cached_property
    def datasets(self) -> list[Mapping[str, Any]]:
        return datasets_of(self.axolotl)

    @cached_property
    def ranks(self) -> int:
        """Processes that each read other rows."""
        return data_ranks(self.axolotl, self.experiment.gpu.count)

    @cached_property
    def steps(self) -> Steps | None:
        """How long the run is; None while some of its rows are unknown."""
        return steps_of(self.axolotl, self.ranks, self.experiment.sizes)

    @cached_property
    def adapts(self) -> bool:
        """Whether an adapter is trained, not the model's own weights."""
        return self.axolotl.get("adapter") in ADAPTERS

    def number(self, key: str) -> float | None:
        """The value of a key at the top as a number; None if it is not set."""
        return number(self.axolotl.get(key))
