"""Hydra's launcher for axosweep, for sweepers other than ours: takes a batch of jobs, returns their objectives."""

# Annotations are not postponed here: Hydra runs this module before it is in sys.modules, where dataclass
# would look up postponed ones.

from collections.abc import Sequence
from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class AxosweepLauncherConf:
    _target_: str = "hydra_plugins.axosweep.launcher.AxosweepLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="axosweep", node=AxosweepLauncherConf, provider="axosweep")


class AxosweepLauncher(Launcher):
    """Composes the batch and runs it as one sweep. A job's return value is its run's best eval loss."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context = hydra_context
        self.task = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from runner.composing.hydra_sweep import run_batch

        return run_batch(self.config, job_overrides, initial_job_idx, self.context, self.task)
