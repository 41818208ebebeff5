"""At which learning rate each LoRA rank of the tiny task does best, under three rules for alpha.

    .venv/bin/python benchmarks/rank_alpha.py

Needs the trainer environment, and half an hour of an idle core. The first seed is trained at learning rates a factor
of 2 apart, until both neighbours of the best one are worse. Then all seeds are trained at the two rates that were best
with the first seed, and at the rate that is best at the middle rank. With --store, a repeated command trains only what
is missing. Writes benchmarks/results/rank_alpha.json; docs/rank-and-alpha.md has the figures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import axosweep
from benchmarks.machine import describe

HERE = Path(__file__).resolve().parent
RULES = ("double", "fixed", "sqrt")
RANKS = (4, 8, 16, 32, 64)
MIDDLE = 16
"""All rules have the same alpha at this rank."""
RATES = tuple(0.0005 * 2.0**power for power in range(8))
BEGIN = 0.004
SEEDS = (1, 2, 3)


@dataclass
class Setting:
    """One rank under one rule."""

    rule: str
    rank: int
    alpha: int = 0
    losses: dict[float, dict[int, float]] = field(default_factory=lambda: defaultdict(dict))
    """The held-out loss at the end, by learning rate and seed."""

    def train(self, rates: Iterable[float], seeds: Sequence[int], store: str) -> None:
        """Runs that have been trained are not trained again. A run that has diverged to NaN has an infinite loss."""
        missing = [rate for rate in rates if not self.has(rate, seeds)]
        if not missing:
            return
        words = (
            f"alpha={self.rule}",
            f"lora_r={self.rank}",
            f"learning_rate={','.join(map(str, missing))}",
            f"seed={','.join(map(str, seeds))}",
            "tracking=disabled",
            "executor.parallel=1",
            f"name=rank_alpha-{self.rule}-{self.rank}",
        )
        rows = {row.key: row for row in axosweep.launch(*words, store=store).rows}
        for run in axosweep.plan(*words, store=store).runs:
            self.alpha = run.config["lora_alpha"]
            self.losses[run.config["learning_rate"]][run.config["seed"]] = _loss(rows[str(run.key)])

    def mean(self, rate: float, seeds: Sequence[int]) -> float:
        return statistics.mean(self.losses[rate][seed] for seed in seeds)

    def has(self, rate: float, seeds: Sequence[int]) -> bool:
        return set(seeds) <= set(self.losses[rate])

    def best(self, seeds: Sequence[int]) -> float:
        """The rate with the lowest mean, among those that all of these seeds were trained at."""
        trained = [rate for rate in RATES if self.has(rate, seeds)]
        return min(trained, key=lambda rate: self.mean(rate, seeds))

    def find_best(self, seed: int, store: str) -> None:
        """Train one seed around its best rate, until the rates on both sides of it are worse."""
        missing: Sequence[float] = _around(BEGIN)
        while missing:
            self.train(missing, [seed], store)
            missing = [rate for rate in _around(self.best([seed])) if not self.has(rate, [seed])]

    def two_best(self, seed: int) -> list[float]:
        return sorted((rate for rate in RATES if self.has(rate, [seed])), key=lambda rate: self.losses[rate][seed])[:2]


def _loss(row: axosweep.Row) -> float:
    if row.final is None and "diverged" not in row.flags:
        raise SystemExit(f"{row.key} has no loss: {row.status}. {row.message}")
    return math.inf if row.final is None else row.final


def _around(rate: float) -> tuple[float, ...]:
    """The rate and its neighbours."""
    at = RATES.index(rate)
    return RATES[max(at - 1, 0) : at + 2]


def main() -> None:
    parser = argparse.ArgumentParser(description="Find the best learning rate of each rank under three rules.")
    parser.add_argument("--ranks", type=int, nargs="+", default=RANKS, help=f"{MIDDLE} has to be one of them")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--store", help="folder of the runs; by default, a temporary one")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "rank_alpha.json")
    args = parser.parse_args()
    if MIDDLE not in args.ranks:
        parser.error(f"--ranks has to contain {MIDDLE}")
    machine = describe(["hydra-core", "omegaconf"])
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as folder:
        settings = _measured(args.ranks, args.seeds, args.store or folder)
    figures = [_figures(one, args.seeds, _rate_of_the_middle(settings, one, args.seeds)) for one in settings.values()]
    result = {"machine": machine, "seeds": args.seeds, "settings": figures}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print("\n".join(json.dumps({key: value for key, value in one.items() if key != "losses"}) for one in figures))


Settings = Mapping[tuple[str, int], Setting]


def _measured(ranks: Sequence[int], seeds: Sequence[int], store: str) -> Settings:
    settings = {(rule, rank): Setting(rule, rank) for rule, rank in itertools.product(RULES, ranks)}
    for one in settings.values():
        one.find_best(seeds[0], store)
    for one in settings.values():
        one.train(one.two_best(seeds[0]), seeds, store)
    for one in settings.values():
        one.train([_rate_of_the_middle(settings, one, seeds)], seeds, store)
    return settings


def _rate_of_the_middle(settings: Settings, setting: Setting, seeds: Sequence[int]) -> float:
    """The best rate of the middle rank under the setting's rule."""
    return settings[setting.rule, MIDDLE].best(seeds)


def _figures(setting: Setting, seeds: Sequence[int], middle: float) -> dict[str, Any]:
    best = setting.best(seeds)
    losses = [setting.losses[best][seed] for seed in seeds]
    return {
        "rule": setting.rule,
        "rank": setting.rank,
        "alpha": setting.alpha,
        "best_rate": best,
        "best_rate_of_each_seed": [setting.best([seed]) for seed in seeds],
        "mean": round(statistics.mean(losses), 4),
        "sd": round(statistics.stdev(losses), 4) if len(losses) > 1 else None,
        "mean_at_the_middle_ranks_rate": round(setting.mean(middle, seeds), 4),
        "losses": {str(rate): _by_seed(setting.losses[rate]) for rate in RATES if setting.losses[rate]},
    }


def _by_seed(losses: Mapping[int, float]) -> dict[str, float | None]:
    return {str(seed): loss if math.isfinite(loss) else None for seed, loss in sorted(losses.items())}


if __name__ == "__main__":
    main()
