"""Settings -> the same runs with further seeds, composed and launched as the sweep was, as runs of that sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modal_app.store.layout import Store
from runner.api.again import ComposedAgain, compose_again
from runner.api.sweeps import refusals_with_text
from runner.config.overrides import parts
from runner.launch.budget import over_budget
from runner.launch.sweep import run_sweep
from runner.launch.types import Launch
from runner.request import Request
from runner.settle.log import SeedRun
from runner.store.ledger import Ledger
from runner.types import Experiment, RunResult

SEED = ("seed", "axolotl.seed")


@dataclass(frozen=True, slots=True)
class Seeds:
    """Seed runs that are ready to be planned or launched."""

    again: ComposedAgain
    """The runs that they repeat lead it, so that they are composed again, too: one that gets another key is not the
    same setting any more."""
    runs: tuple[SeedRun, ...]
    """In the order of the experiments, without those that are repeated."""

    def planned(self) -> Launch:
        """What it would run and cost. Raises SweepError if it cannot be launched, or would not repeat the settings."""
        return self.again.planned(
            "a further seed would be a run of another setting", ", or launch the sweep again, and settle that one"
        )

    def prices(self) -> dict[SeedRun, float]:
        """The most dollars that each unfinished run may cost; those of preparing are added to the first. A run whose
        price is unknown has none."""
        launch = self.planned()
        assert launch.cost is not None
        preparing = launch.cost.preparing.high if launch.cost.preparing else 0.0
        by_key = {one.key: one.dollars.high for one in launch.cost.runs if one.dollars is not None}
        keys = [run.key for run in launch.runs[len(self.again.known) :]]
        prices = {one: by_key[key] for one, key in zip(self.runs, keys, strict=True) if key in by_key}
        first = next(iter(prices), None)
        return prices if first is None else {**prices, first: prices[first] + preparing}

    def launch(self, budget: float | None, *, confirmed: bool) -> list[RunResult]:
        """Run them as runs of the sweep; one result for each, without those of the repeated runs."""
        request = replace(self.again.request, budget=budget, confirmed=confirmed)
        with refusals_with_text():
            return run_sweep(self.again.experiments, request, lambda *_: None)[len(self.again.known) :]


def compose(store: Store, sweep: str, runs: Sequence[SeedRun]) -> Seeds:
    """Raises SweepError for overrides that cannot be composed any more."""
    known = {run.key: run for run in Ledger(store, sweep).plan().runs}
    seeds: dict[str, list[int]] = {}
    for one in runs:
        seeds.setdefault(one.like, []).append(one.seed)
    repeated: list[Experiment] = []
    further: list[Experiment] = []
    request: Request | None = None
    for key, values in seeds.items():
        overrides = known[key].overrides
        (again,), request = compose_again(overrides, store, sweep)
        without = [one for one in overrides if parts(one).key not in SEED]
        swept, _ = compose_again([*without, f"seed={','.join(map(str, values))}"], store, sweep)
        repeated.append(again)
        further += swept
    assert request is not None, "a round has a run"
    ordered = tuple(SeedRun(key, value) for key, values in seeds.items() for value in values)
    return Seeds(ComposedAgain((*repeated, *further), request, tuple(seeds)), ordered)


def refuse_budget(launch: Launch, dollars: float) -> str:
    """Why a planned launch is over that many dollars; empty if it is not."""
    assert launch.cost is not None
    return over_budget(launch.cost, replace(launch.request, budget=dollars))
