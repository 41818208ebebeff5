"""What the rules look at: one run's config, its GPUs, its model, its rows, and what follows from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from modal_app.store.facts import DataManifest
from runner.config.architectures import Architecture, architecture
from runner.config.fields import plugins_of
from runner.config.known_names import class_named
from runner.config.numbers import number
from runner.cost.length import batch_of, data_ranks, length_of
from runner.cost.types import Rows
from runner.errors import SweepError
from runner.memory.model_facts import config_of
from runner.preflight.data import Steps, datasets_of, rows_taken, steps_of
from runner.preflight.jsonl import LocalRows, rows_of
from runner.preflight.memory import facts_for
from runner.preflight.pairs import evaluates
from runner.types import Experiment, ModelFacts

ADAPTERS = ("lora", "qlora")


@dataclass(frozen=True, slots=True)
class ListedDataset:
    """An entry of `datasets` or `test_datasets`."""

    at: str
    """Its key: `datasets.0`."""
    entry: Mapping[str, Any]
    rows: LocalRows | None
    """Of its file, if that is one on this machine that preflight reads."""
    taken: int | None
    """How many of them it uses."""

    @property
    def path(self) -> str:
        return str(self.entry.get("path") or "")


@dataclass(frozen=True)
class RunFacts:
    """All values in the config are of their types and in their ranges: rules are checked only if nothing else is wrong.

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
        return facts_for(self.experiment, ask_hub=False).facts

    @property
    def parameters(self) -> float | None:
        """The size of the model; None for one without facts."""
        return self.model.parameters if self.model is not None else None

    @cached_property
    def architecture(self) -> Architecture | None:
        """The architecture by the class that the config names, by a file of conf/model, or by the model's config.json
        on this machine."""
        if name := self._class_in_config or class_named(str(self.axolotl.get("base_model") or "")):
            return architecture(name)
        return architecture(str(self.model_config.get("model_type"))) if self.model_config else None

    @cached_property
    def model_config(self) -> Mapping[str, Any]:
        """The model's config.json, at the revision of the run; empty if it is not on this machine."""
        revision = self.axolotl.get("revision_of_model")
        return config_of(str(self.axolotl.get("base_model") or ""), None if revision is None else str(revision)) or {}

    @property
    def _class_in_config(self) -> str | None:
        name = str(self.axolotl.get("type_of_model") or self.axolotl.get("model_type") or "")
        return name if name and not name.startswith("Auto") else None

    @cached_property
    def datasets(self) -> list[Mapping[str, Any]]:
        return datasets_of(self.axolotl)

    @cached_property
    def training(self) -> list[ListedDataset]:
        return _listed("datasets", self.axolotl)

    @cached_property
    def testing(self) -> list[ListedDataset]:
        return _listed("test_datasets", self.axolotl)

    @cached_property
    def ranks(self) -> int:
        """Processes that each read other rows."""
        return data_ranks(self.axolotl, self.experiment.gpu.count)

    @cached_property
    def steps(self) -> Steps | None:
        """How long the run is, by its prepared dataset if there is one; None while some of its rows are unknown."""
        return self._prepared_steps or steps_of(self.axolotl, self.ranks, self.experiment.sizes)

    @cached_property
    def _prepared_steps(self) -> Steps | None:
        known = self.prepared
        if not known.rows:
            return None
        mean = known.tokens / known.rows if known.tokens else None
        rows = Rows(known.rows, known.eval_rows or 0, mean, known.longest_row, "prepared rows")
        length, batch = length_of(self.axolotl, self.ranks, rows), batch_of(self.axolotl)
        if isinstance(length, str):
            return None
        given = (self.number("max_steps") or 0) > 0
        size = batch.micro * batch.accumulation * self.ranks
        return Steps(known.rows, size, length.steps, given, declared=False)

    @cached_property
    def total_steps(self) -> int | None:
        """The most steps that the complete run has; max_steps is enough to know it."""
        given = self.number("max_steps") or 0
        if given > 0:
            return int(given)
        return self.steps.total if self.steps is not None else None

    @cached_property
    def steps_per_epoch(self) -> float | None:
        """The most steps that an epoch has, also in a run that max_steps ends."""
        if self.steps is None:
            return None
        epochs = self.number("num_epochs") or 1.0
        return self.steps.rows / self.steps.batch if self.steps.given else self.steps.total / epochs

    @cached_property
    def foreign(self) -> bool:
        """Whether a plugin that Axolotl does not ship may read any key, or replace any part of the trainer."""
        return has_foreign_plugin(self.axolotl)

    @cached_property
    def evaluates(self) -> bool:
        return evaluates(self.axolotl)

    @cached_property
    def adapts(self) -> bool:
        """Whether an adapter is trained, not the model's own weights."""
        return self.axolotl.get("adapter") in ADAPTERS

    def number(self, key: str) -> float | None:
        """The value of a key at the top as a number; None if it is not set."""
        return number(self.axolotl.get(key))


def has_foreign_plugin(axolotl: Mapping[str, Any]) -> bool:
    return any(not plugin.startswith("axolotl.") for plugin in plugins_of(axolotl))


def is_off(value: object) -> bool:
    """Whether a value is false, as pydantic reads it."""
    return value is not None and str(value).lower() in ("false", "no", "off", "0", "f", "n")


def is_on(value: object) -> bool:
    return bool(value) and not is_off(value)


def _listed(key: str, axolotl: Mapping[str, Any]) -> list[ListedDataset]:
    return [
        ListedDataset(f"{key}.{index}", entry, rows_of_file(entry), rows_taken(entry))
        for index, entry in enumerate(datasets_of(axolotl, key))
    ]


def rows_of_file(entry: Mapping[str, Any]) -> LocalRows | None:
    """None for a dataset that is not read before a launch, or that has a row which cannot be one."""
    try:
        return rows_of(entry)
    except SweepError:  # a finding of its own
        return None
