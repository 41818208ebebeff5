"""How many runs `axosweep settle` needs to find the best of settings whose true losses are known from ten seeds.

    .venv/bin/python benchmarks/settle_power.py [--store DIR]

Needs the trainer environment. Trains eight learning rates on the tiny task with ten seeds each, 40 steps: 80 runs,
about ten minutes of one core. Then it settles sweeps of some of these rates many times, each time with the ten seeds in
another order, and compares that with five seeds for all. With --store, what is trained there already is not trained
again.
Writes benchmarks/results/settle_power.json; docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.machine import describe
from modal_app.store.layout import Store
from runner.compare.ranking import compare_sweep
from runner.compare.verdicts import judged_of
from runner.settle.policy import Conclusion
from runner.verdict.intervals import intervals
from runner.verdict.judged import Floats, SettingLosses
from tests.runner.settling import TERMS, play

HERE = Path(__file__).resolve().parent
AXOSWEEP = str(Path(sys.executable).with_name("axosweep"))
RATES = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)
SEEDS = tuple(range(1, 11))
RECIPE = ("lora=r8", "max_steps=40", "tracking=disabled", "executor.parallel=1", "name=truth")
FIVE = 5
SWEEPS = {
    "far apart": (0.001, 0.002, 0.004),
    "a wide search": (0.0005, 0.001, 0.002, 0.004, 0.016, 0.064),
    "two that are near": (0.001, 0.002, 0.004, 0.016, 0.032),
    "two that are nearer": (0.001, 0.002, 0.004, 0.008, 0.032),
    "the best two not told apart by ten seeds": RATES,
}
DRAWS = 2000
KNOWN = 3.25
"""Student's t with nine degrees of freedom at 99 %: so far, at least, any other rate is from the best one."""


@dataclass(frozen=True, slots=True)
class Truth:
    judged: SettingLosses
    """Of all rates, each with ten seeds."""
    at: dict[float, int]
    """The place of each rate in it."""

    def part(self, rates: Sequence[float], orders: Sequence[Sequence[int]]) -> list[list[Floats]]:
        """The rows of runs by rate, in these orders of the seeds."""
        return [
            [self.judged.nll[self.at[rate]][seed] for seed in order] for rate, order in zip(rates, orders, strict=True)
        ]

    def judge(self, runs: Sequence[Sequence[Floats]]) -> SettingLosses:
        return SettingLosses(
            settings=tuple(map(str, range(len(runs)))),
            runs=tuple(tuple(f"{one}.{seed}" for seed in range(len(several))) for one, several in enumerate(runs)),
            nll=tuple(np.stack(several) for several in runs),
            tokens=self.judged.tokens,
            document=self.judged.document,
            documents_known=self.judged.documents_known,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a folder for the runs; a temporary one by default")
    parser.add_argument("--orders", type=int, default=200, help="of the seeds, for each sweep")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "settle_power.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="axosweep-benchmark-") as name:
        truth = _truth(Store(args.store or Path(name)))
        rates = {str(rate): _described(truth.judged.run_means[truth.at[rate]]) for rate in RATES}
        found = {name: _settled(truth, part, args.orders) for name, part in SWEEPS.items()}
    result = {"recipe": " ".join(RECIPE), "rates": rates, "orders": args.orders, "sweeps": found}
    result |= {"machine": describe(["numpy"])}
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def _truth(store: Store) -> Truth:
    words = [f"learning_rate={','.join(map(str, RATES))}", f"seed={','.join(map(str, SEEDS))}", *RECIPE]
    done = subprocess.run(
        [AXOSWEEP, "-m", *words, "--json"], env={**os.environ, "AXOSWEEP_STORE": str(store.root)},
        stdout=subprocess.PIPE, check=True,
    )  # fmt: skip
    rows = compare_sweep(store, json.loads(done.stdout)["sweep"])
    (judged,) = judged_of(rows)
    rate = {row.key: float(row.params["learning_rate"]) for row in rows}
    return Truth(judged, {rate[runs[0]]: at for at, runs in enumerate(judged.runs)})


def _described(means: Floats) -> dict[str, float]:
    return {"loss": round(float(means.mean()), 4), "sd": round(float(means.std(ddof=1)), 4)}


@dataclass(frozen=True, slots=True)
class _Next:
    """Trains nothing: the next seed of a setting."""

    seeds: Sequence[Iterator[Floats]]

    def __call__(self, setting: int) -> Floats:
        return next(self.seeds[setting])


def _t(truth: Truth, rate: float, best: float) -> float:
    """How much worse a rate is than the best one, by all seeds, in standard errors (Welch)."""
    one, other = (truth.judged.run_means[truth.at[each]] for each in (rate, best))
    return float((one.mean() - other.mean()) / np.sqrt((one.var(ddof=1) + other.var(ddof=1)) / len(SEEDS)))


def _settled(truth: Truth, rates: Sequence[float], orders: int) -> dict[str, Any]:
    random = np.random.default_rng(11)
    half, every = FIVE * len(rates) / 2, truth.part(rates, [range(len(SEEDS))] * len(rates))
    best = int(np.argmin([np.stack(runs).sum() for runs in every]))
    played, five = [], 0
    for _ in range(orders):
        runs = truth.part(rates, [list(random.permutation(len(SEEDS))) for _ in rates])
        seeds: list[Iterator[Floats]] = [iter(several) for several in runs]
        played.append(play(truth.judge, _Next(seeds), len(rates), TERMS, draws=DRAWS))
        five += len(intervals(truth.judge([several[:FIVE] for several in runs]), draws=DRAWS).best_group) == 1
    separated = [one for one in played if one.verdict is Conclusion.SEPARATED]
    return {
        "rates": list(rates),
        "known_from_ten_seeds": all(
            one == best or _t(truth, rates[one], rates[best]) > KNOWN for one in range(len(rates))
        ),
        "separated": len(separated) / orders,
        "right": sum(one.group[0] == best for one in separated) / max(len(separated), 1),
        "runs": round(fmean(one.runs for one in played), 1),
        "median_runs": median(one.runs for one in played),
        "at_most_half": sum(one.runs <= half for one in separated) / orders,
        "runs_of_five_seeds": FIVE * len(rates),
        "separated_by_five_seeds": five / orders,
    }


if __name__ == "__main__":
    main()
