"""Runs that differ only in their seed are one setting, judged by the mean over its seeds, not by its luckiest seed.
Pure."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.compare.params import differing_params

SEEDS = ("seed", "data.seed")


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """The final values of a setting's finished runs."""

    n: int
    mean: float
    sd: float
    """The sample standard deviation."""


def settings_of(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each run, a text that is equal for the runs of one setting.

    Two runs with the same seed (a run on two stores, or on two machines) are not two seeds of a setting, so then each
    run is a setting of its own.
    """
    without = [{name: value for name, value in config.items() if name not in SEEDS} for config in configs]
    settings = [json.dumps(one, sort_keys=True) for one in differing_params(without)]
    seeds: dict[str, list[str]] = {}
    for setting, config in zip(settings, configs, strict=True):
        seeds.setdefault(setting, []).append(json.dumps([config.get(name) for name in SEEDS]))
    return [
        setting if len(set(seeds[setting])) == len(seeds[setting]) else f"{setting} {number}"
        for number, setting in enumerate(settings)
    ]


def without_seeds(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name not in SEEDS}


def over_seeds(values: Sequence[float]) -> OverSeeds | None:
    """None for a setting of fewer than two finished runs. `values`: their final ones."""
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    return OverSeeds(len(values), statistics.fmean(values), statistics.stdev(values))


def pooled_sd(settings: Iterable[tuple[int, float]]) -> float | None:
    """The standard deviation between the seeds of a setting, pooled. `settings`: for each setting, the number of its
    seeds and their standard deviation. None if no setting has several seeds."""
    several = [(number, sd) for number, sd in settings if number > 1]
    degrees = sum(number - 1 for number, _ in several)
    return math.sqrt(sum((number - 1) * sd**2 for number, sd in several) / degrees) if degrees else None
