"""A Hydra application with a launcher that composes each job and does nothing: stock Hydra, for compose.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher


class NoopLauncher(Launcher):
    """Composes each job, as every launcher must."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        for overrides in job_overrides:
            self.loader.load_sweep_config(self.config, list(overrides))
        return [JobReturn(status=JobStatus.COMPLETED) for _ in job_overrides]


# Hydra 1.3 instantiates plugins of its own namespace only.
NoopLauncher.__module__ = "hydra_plugins.noop"
sys.modules["hydra_plugins.noop"] = sys.modules[__name__]


def main() -> None:
    conf = sys.argv.pop(1)
    Plugins.instance().register(NoopLauncher)
    ConfigStore.instance().store("noop", {"_target_": "hydra_plugins.noop.NoopLauncher"}, group="hydra/launcher")
    quiet = ["hydra/launcher=noop", "hydra/hydra_logging=none", "hydra/job_logging=none", "hydra.sweep.dir=/tmp"]
    sys.argv += [*quiet, "hydra.output_subdir=null"]
    hydra.main(version_base="1.3", config_path=conf, config_name="config")(lambda config: None)()


if __name__ == "__main__":
    main()
