"""Our own resolvers for `${...}` in conf/, in addition to those of omegaconf and Hydra."""

from __future__ import annotations

from typing import Any

import omegaconf
from omegaconf import OmegaConf

from runner.config.shipped import shipped_root


def register_resolvers() -> None:
    """`${shipped:tiny/model}` is a path of the shipped data on this machine; `${for_gpu:${gpu.type},A,B}` is A on a
    GPU, and B on a CPU.
    """
    since_2_4 = not omegaconf.__version__.startswith("2.3.")  # 2.3 has an older function by the newer name
    register: Any = getattr(OmegaConf, "register_resolver" if since_2_4 else "register_new_resolver")
    register("shipped", lambda path: str(shipped_root() / path), replace=True)
    register("for_gpu", lambda kind, on_gpu, on_cpu: on_cpu if kind == "cpu" else on_gpu, replace=True)
