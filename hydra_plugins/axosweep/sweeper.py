"""Hydra's sweeper for axosweep: composes each job once and passes all of them on together."""

# Annotations are not postponed here: Hydra runs this module before it is in sys.modules, where dataclass
# would look up postponed ones.

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig


@dataclass
class AxosweepSweeperConf:
    _target_: str = "hydra_plugins.axosweep.sweeper.AxosweepSweeper"
    params: dict[str, Any] = field(default_factory=dict)
    """Axes: a YAML list, or a string in Hydra's grammar; any key as on the command line."""
    zip: Any = field(default_factory=list)
    """Lists of axes that move together, as in [[lora_r, lora_alpha]]; also --zip."""
    exclude: Any = field(default_factory=list)
    """Points that are left out, as in ['lora=r128 learning_rate=8e-4']; also --exclude."""
    single: bool = False
    """The request has no -m, so more than one job is a mistake."""
    alone: bool = False
    """The overrides describe runs completely: what a sweep file says of axes does not count."""


ConfigStore.instance().store(group="hydra/sweeper", name="axosweep", node=AxosweepSweeperConf, provider="axosweep")


class AxosweepSweeper(Sweeper):
    """Expands the axes, composes and checks every job, and launches them as one sweep."""

    def __init__(
        self,
        params: DictConfig | None = None,
        zip: ListConfig | None = None,
        exclude: ListConfig | None = None,
        single: bool = False,
        alone: bool = False,
    ) -> None:
        self.single = single

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.task = task_function
        self.config = config

    def sweep(self, arguments: list[str]) -> Sequence[Any]:
        from runner.composing.hydra_sweep import run_sweep

        assert self.config is not None
        return run_sweep(self.config, arguments, self.context, self.task, single=self.single)
