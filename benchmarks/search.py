"""What searches cost, and what they miss, on a grid whose runs are all known.

    .venv/bin/python benchmarks/search.py [--orders 1200]

Nothing is trained: the searches are simulated with the recorded losses of benchmarks/search_curves.py, each time with
one of its three seeds, the runs in another order, 1 to 24 at a time, and each with its own pace. What a run and a
launcher do at a rung is done by the functions of modal_app/halving that do it in a sweep. About fifteen minutes of a
core. Writes benchmarks/results/search.json; docs/benchmarks.md has the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe
from benchmarks.search_curves import SEEDS, STEPS, Curves, Floats
from benchmarks.search_optuna import PrunedRuns
from benchmarks.search_points import by_coordinate, by_tpe
from benchmarks.search_replay import Grid, Order, OurRule, PublishedAsha, Rule, play
from runner.verdict.intervals import intervals
from runner.verdict.judged import SettingLosses

HERE = Path(__file__).resolve().parent
DRAWN = 14
"""Of the grid's points, by a random search with rungs."""
CHOSEN = 12
"""By tpe, and by a random search without rungs: 43 % of the grid's runs."""
PLAIN = {"audit": False, "margin": False, "keep_rate": False}
OURS: dict[str, dict[str, Any]] = {
    "without the three": PLAIN,
    "with the audit": {**PLAIN, "audit": True},
    "with the margin": {**PLAIN, "margin": True},
    "with the largest rate": {**PLAIN, "keep_rate": True},
    "with all three": dict.fromkeys(PLAIN, True),
    "eta 2, without the three": {**PLAIN, "eta": 2},
    "eta 4, without the three": {**PLAIN, "eta": 4},
}


@dataclass(frozen=True, slots=True)
class Truth:
    """The grid of one seed."""

    grid: Grid
    group: frozenset[int]
    """Its best group: what `compare` says of these runs, by their rows."""
    group_of_all_seeds: frozenset[int]
    """What it says of the settings with all their seeds."""
    means: Floats
    """The loss of each setting, over all seeds."""

    @property
    def best(self) -> float:
        return float(np.min(self.grid.final))


@dataclass(frozen=True, slots=True)
class SearchOutcome:
    """What one search has cost, and found."""

    steps: float
    """As a share of the whole grid's."""
    seconds: float
    """As a share of what the whole grid takes with as many at a time."""
    runs: int
    """That were begun."""
    finished: int
    winner: int | None
    """Its place in the whole grid."""
    missed: float
    """How much lower the loss of the best of these runs is, to their ends."""


Search = Callable[[Truth, int], SearchOutcome]
"""The grid, and the number of the order."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--orders", type=int, default=1200)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "search.json")
    args = parser.parse_args()
    curves = Curves.read()
    truths = _truths(curves)
    searches = {name: _summary(truths, search, args.orders) for name, search in _searches().items()}
    result = {
        "recipe": curves.about["recipe"],
        "settings": truths[0].grid.size,
        "seeds": len(truths),
        "grid": _described(curves, truths),
        "orders": args.orders,
        "searches": searches,
        "all_seeds_in_one_search": _all_seeds(curves, args.orders // 20),
        "worst_first_one_at_a_time": _worst_first(truths),
        "trained_on": curves.about["machine"],
        "machine": describe(["numpy", "optuna"]),
    }
    args.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _searches() -> dict[str, Search]:
    halved: dict[str, Search] = {
        f"grid + rungs, {name}": partial(_halved, partial(OurRule.of, **terms)) for name, terms in OURS.items()
    }
    others: dict[str, Search] = {
        "published ASHA": partial(_halved, lambda grid, _: PublishedAsha(grid)),
        "Optuna's SuccessiveHalvingPruner": partial(_halved, PrunedRuns.by_halving),
        "Optuna's HyperbandPruner": partial(_halved, PrunedRuns.by_hyperband),
        f"random {DRAWN} + rungs, with all three": _random_halved,
        f"random {CHOSEN}": _random,
        "coordinate": _coordinate,
        f"tpe {CHOSEN}": _tpe,
    }
    return {**halved, **others}


def _halved(make: Callable[[Grid, Order], Rule], truth: Truth, number: int) -> SearchOutcome:
    grid, order = truth.grid, Order.drawn(truth.grid.size, number)
    played = play(grid, order, make(grid, order))
    return SearchOutcome(
        steps=played.steps / grid.steps,
        seconds=played.seconds / _seconds_of_all(grid, order),
        runs=grid.size,
        finished=len(played.finished),
        winner=(winner := played.winner(grid)),
        missed=_missed(grid, winner),
    )


def _missed(grid: Grid, winner: int | None) -> float:
    return math.nan if winner is None else float(grid.final[winner]) - min(map(float, grid.final))


def _random(truth: Truth, number: int) -> SearchOutcome:
    order = Order.drawn(truth.grid.size, number)
    return _unhalved(truth, order, [order.queue[:CHOSEN]])


def _coordinate(truth: Truth, number: int) -> SearchOutcome:
    return _unhalved(truth, Order.drawn(truth.grid.size, number), by_coordinate(truth.grid).rounds)


def _tpe(truth: Truth, number: int) -> SearchOutcome:
    order = Order.drawn(truth.grid.size, number)
    return _unhalved(truth, order, by_tpe(truth.grid, order, number, CHOSEN).rounds)


def _unhalved(truth: Truth, order: Order, rounds: Sequence[Sequence[int]]) -> SearchOutcome:
    """All runs to their ends, round by round."""
    drawn = [run for several in rounds for run in several]
    return SearchOutcome(
        steps=len(drawn) / truth.grid.size,
        seconds=sum(_seconds(several, order) for several in rounds) / _seconds_of_all(truth.grid, order),
        runs=len(drawn),
        finished=len(drawn),
        winner=min(drawn, key=lambda run: truth.grid.final[run]),
        missed=0.0,
    )


def _random_halved(truth: Truth, number: int) -> SearchOutcome:
    drawn = random.Random(-1 - number).sample(range(truth.grid.size), DRAWN)
    part, order = truth.grid.part(drawn), Order.drawn(DRAWN, number)
    played = play(part, order, OurRule.of(part, order))
    winner = played.winner(part)
    whole = _seconds_of_all(truth.grid, Order.drawn(truth.grid.size, number, order.parallel))
    return SearchOutcome(
        steps=played.steps / truth.grid.steps,
        seconds=played.seconds / whole,
        runs=DRAWN,
        finished=len(played.finished),
        winner=None if winner is None else drawn[winner],
        missed=_missed(part, winner),
    )


def _seconds_of_all(grid: Grid, order: Order) -> float:
    return _seconds(order.queue, order)


def _seconds(runs: Sequence[int], order: Order) -> float:
    """Seconds of training runs to their ends, so many at a time."""
    free = [0.0] * order.parallel
    for run in runs:
        free.sort()
        free[0] += STEPS * order.pace[run]
    return max(free)


def _summary(truths: Sequence[Truth], search: Search, orders: int) -> dict[str, Any]:
    played = [(truths[number % len(truths)], number) for number in range(orders)]
    found = [(truth, search(truth, number)) for truth, number in played]
    won = [(truth, one.winner, float(truth.grid.final[one.winner]) - truth.best)
           for truth, one in found if one.winner is not None]  # fmt: skip
    steps, regrets = np.array([one.steps for _, one in found]), np.array([regret for *_, regret in won])
    of_setting = [float(truth.means[winner] - np.min(truth.means)) for truth, winner, _ in won]
    return {
        "steps": round(float(steps.mean()), 4),
        "steps_p90": round(float(np.quantile(steps, 0.9)), 4),
        "seconds": round(float(np.mean([one.seconds for _, one in found])), 4),
        "runs": round(float(np.mean([one.runs for _, one in found])), 2),
        "finished": round(float(np.mean([one.finished for _, one in found])), 2),
        "without_a_finished_run": len(found) - len(won),
        "regret": round(float(regrets.mean()), 5),
        "regret_p90": round(float(np.quantile(regrets, 0.9)), 5),
        "regret_max": round(float(regrets.max()), 5),
        "missed_of_the_runs_begun": round(float(np.nanmean([one.missed for _, one in found])), 5),
        "regret_of_the_setting_over_seeds": round(float(np.mean(of_setting)), 5),
        "best_of_the_grid": round(sum(one == 0 for one in regrets) / len(found), 4),
        "in_the_best_group": round(sum(winner in truth.group for truth, winner, _ in won) / len(found), 4),
        "in_the_best_group_of_all_seeds": round(
            sum(winner in truth.group_of_all_seeds for truth, winner, _ in won) / len(found), 4
        ),
    }


def _truths(curves: Curves) -> list[Truth]:
    members = [np.flatnonzero(curves.seed == seed) for seed in SEEDS]
    of_all = _group(curves, list(zip(*members, strict=True)))
    grids = [Grid.of(curves, runs.tolist()) for runs in members]
    means = np.mean([grid.final for grid in grids], axis=0)
    return [
        Truth(grid, _group(curves, [(run,) for run in runs]), of_all, means)
        for grid, runs in zip(grids, members, strict=True)
    ]


def _group(curves: Curves, settings: Sequence[tuple[Any, ...]]) -> frozenset[int]:
    """The best group of settings, each with its runs, as `compare` finds it."""
    return frozenset(intervals(_judged(curves, settings)).best_group)


def _judged(curves: Curves, settings: Sequence[tuple[Any, ...]]) -> SettingLosses:
    return SettingLosses(
        settings=tuple(map(str, range(len(settings)))),
        runs=tuple(tuple(map(str, runs)) for runs in settings),
        nll=tuple(curves.nll[list(runs), -1] for runs in settings),
        tokens=curves.tokens.astype(np.float64),
        document=np.unique(curves.document, return_inverse=True)[1],
        documents_known=True,
    )


def _described(curves: Curves, truths: Sequence[Truth]) -> dict[str, Any]:
    """The grid's losses, and how much seeds differ."""
    grids = np.stack([truth.grid.final for truth in truths])
    means, sds = grids.mean(axis=0), np.where(np.isfinite(grids), grids, 0.0).std(axis=0, ddof=1)
    members = truths[0].grid.members
    names = [f"{curves.rate[one]:g}, rank {curves.rank[one]}" for one in members]
    best = int(np.argmin(means))
    group = sorted(truths[0].group_of_all_seeds, key=lambda one: means[one])
    return {
        "loss_and_sd": {
            name: [round(float(mean), 4), round(float(sd), 4)]
            for name, mean, sd in zip(names, means, sds, strict=True)
            if math.isfinite(mean)
        },
        "best": names[best],
        "best_of_each_seed": [names[int(np.argmin(truth.grid.final))] for truth in truths],
        "group_of_all_seeds": [names[one] for one in group],
        "group_of_each_seed": [[names[one] for one in sorted(truth.group)] for truth in truths],
        "seed_sd_of_the_best_five": round(float(np.sqrt((sds[np.argsort(means)[:5]] ** 2).mean())), 4),
        "diverged": int(sum(end < STEPS for truth in truths for end in truth.grid.ends_at)),
    }


def _worst_first(truths: Sequence[Truth]) -> dict[str, float]:
    """The steps if each run is better than all before it."""
    found: dict[str, float] = {}
    for name in ("without the three", "with all three"):
        shares = []
        for grid in (truth.grid for truth in truths):
            queue = sorted(range(grid.size), key=partial(_at_first_rung, grid), reverse=True)
            order = replace(Order.drawn(grid.size, 0, 1), queue=tuple(queue))
            shares.append(play(grid, order, OurRule.of(grid, order, **OURS[name])).steps / grid.steps)
        found[name] = round(float(np.mean(shares)), 4)
    return found


def _at_first_rung(grid: Grid, run: int) -> float:
    loss = grid.readings[run][0].loss
    return math.inf if loss is None else loss


def _all_seeds(curves: Curves, orders: int) -> dict[str, Mapping[str, float]]:
    """One search over all runs, in which the noise of seeds is known."""
    grid = Grid.of(curves, range(len(curves.rate)))
    found: dict[str, Mapping[str, float]] = {}
    for name in ("without the three", "with the margin", "with all three"):
        played = []
        for number in range(orders):
            order = Order.drawn(grid.size, number)
            one = play(grid, order, OurRule.of(grid, order, **OURS[name]))
            winner = one.winner(grid)
            played.append((one.steps / grid.steps, math.inf if winner is None else float(grid.final[winner])))
        steps, loss = np.array(played).mean(axis=0)
        regret = float(loss) - min(map(float, grid.final))
        found[name] = {"orders": orders, "steps": round(float(steps), 4), "regret": round(regret, 5)}
    return found


if __name__ == "__main__":
    main()
