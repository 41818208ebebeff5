"""The sweeps that compose.py composes, as axes and as jobs. Standard library: each side imports it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

LORAS, TRAININGS = ("r4", "r8", "r16", "r32", "r64"), ("default", "fast", "quality", "one_epoch", "sanity")
MODELS = ("tiny", "qwen3_0_6b", "qwen3_1_7b", "llama3_2_1b")

SWEEPS = ("values", "groups")
"""`values`: four sets of group choices; all other differences are values. `groups`: a hundred sets of group choices."""


def axes(sweep: str, runs: int) -> list[str]:
    """The axes of a sweep in Hydra's grammar."""
    return [f"{name}={','.join(values)}" for name, values in _axes(sweep, runs).items()]


def jobs(sweep: str, runs: int) -> list[list[str]]:
    """The product of the axes."""
    named = _axes(sweep, runs)
    return [
        [f"{name}={value}" for name, value in zip(named, values, strict=True)]
        for values in itertools.product(*named.values())
    ]


def _axes(sweep: str, runs: int) -> Mapping[str, Sequence[str]]:
    if sweep == "groups":
        seeds = [str(number) for number in range(runs // 100)]
        return {"lora": LORAS, "training": TRAININGS, "model": MODELS, "++axolotl.seed": seeds}
    rates = [f"{number + 1}e-5" for number in range(runs // 20)]
    seeds = [str(number) for number in range(5)]
    return {"lora": LORAS[:4], "++axolotl.learning_rate": rates, "++axolotl.seed": seeds}
