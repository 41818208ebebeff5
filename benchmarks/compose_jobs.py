"""Compose a sweep's jobs to plain dicts, with hydra-fast or like axosweep: compose.py runs it as a process.

It is run with -m from the repository's root, since the environment of hydra-fast has no axosweep.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.compose_sweeps import jobs


def main() -> None:
    tool, conf, sweep, runs = sys.argv[1:]
    overrides = jobs(sweep, int(runs))
    if tool == "hydra-fast":
        configs, taken = _hydra_fast(conf, overrides)
    else:
        configs, taken = _axosweep(conf, overrides)
    assert len(configs) == len(overrides)
    assert "axolotl" in configs[-1]
    print(f"composing_cpu_seconds {taken:.3f}")


def _hydra_fast(conf: str, overrides: list[list[str]]) -> tuple[list[Any], float]:
    from hydra_fast import OmegaConf, compose, initialize_config_dir

    OmegaConf.register_new_resolver("shipped", lambda path: f"/{path}")
    began = time.process_time()
    with initialize_config_dir(config_dir=conf, version_base="1.3"):
        configs = [OmegaConf.to_container(compose("config", overrides=one), resolve=True) for one in overrides]
    return configs, time.process_time() - began


def _axosweep(conf: str, overrides: list[list[str]]) -> tuple[list[Any], float]:
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    from runner.composing.fast_compose import ComposedJob, compose_all
    from runner.composing.hydra_inside import CachingLoader
    from runner.composing.resolvers import register_resolvers

    register_resolvers()
    with initialize_config_dir(conf, version_base="1.3"):
        loader = CachingLoader(GlobalHydra.instance().config_loader())
        master = loader.load_configuration("config", [], RunMode.MULTIRUN)  # Hydra always does this first
        began = time.process_time()
        configs = [one.node for one in compose_all(master, overrides, loader) if isinstance(one, ComposedJob)]
        return configs, time.process_time() - began


if __name__ == "__main__":
    main()
