"""Our own resolvers for `${...}` in conf/, in addition to those of omegaconf and Hydra."""

from __future__ import annotations

import math
from typing import Any

import omegaconf
from omegaconf import OmegaConf

from runner.config.shipped import shipped_root


def register_resolvers() -> None:
    """`${shipped:tiny/model}` is a path of the shipped data on this machine; `${for_gpu:${gpu.type},A,B}` is A on a
    GPU, and B on a CPU. `${times:2,${.lora_r}}` is twice the rank, `${times_sqrt:8,${.lora_r}}` is 8 * sqrt(rank), both
    rounded, since Axolotl takes a whole number as lora_alpha.
    """
    since_2_4 = not omegaconf.__version__.startswith("2.3.")  # 2.3 has an older function by the newer name
    register: Any = getattr(OmegaConf, "register_resolver" if since_2_4 else "register_new_resolver")
    register("shipped", lambda path: str(shipped_root() / path), replace=True)
    register("for_gpu", lambda kind, on_gpu, on_cpu: on_cpu if kind == "cpu" else on_gpu, replace=True)
    register("times", _times, replace=True)
    register("times_sqrt", _times_sqrt, replace=True)


def _times(factor: float, number: Any) -> int | None:
    """None where the number is not a positive one: preflight then names the key that has it, and what was expected."""
    return round(factor * number) if isinstance(number, int | float) and number > 0 else None


def _times_sqrt(factor: float, number: Any) -> int | None:
    return _times(factor, math.sqrt(number)) if _times(1, number) else None
