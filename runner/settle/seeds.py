"""Settings -> the same runs with further seeds, composed and launched as the sweep was, as runs of that sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modal_app.store.layout import Store
from runner.api import application
from runner.api.plans import refuse_pages, request_words
from runner.api.sweeps import refusals_with_text
from runner.composing.search_node import NO_SEARCH
from runner.config.overrides import parts
from runner.errors import SweepError
from runner.launch.budget import over_budget
from runner.launch.identify import identify, resolve
from runner.launch.plan import plan
from runner.launch.price import price
from runner.launch.sweep import run_sweep, unresolved_text
from runner.launch.types import Launch
from runner.settle.log import SeedRun
from runner.store.ledger import Ledger
from runner.store.stores import is_mirror
from runner.types import Action, Experiment, Request, RunResult

SEED = ("seed", "axolotl.seed")


@dataclass(frozen=True, slots=True)
class Seeds:
    """Seed runs that are ready to be planned or launched."""

    experiments: tuple[Experiment, ...]
    request: Request
    runs: tuple[SeedRun, ...]
    """In the order of the experiments, without those that are repeated."""
    repeated: tuple[str, ...]
    """The runs that they repeat, by key. They lead `experiments`, so that they are composed again, too: one that gets
    another key is not the same setting any more."""

    def planned(self) -> Launch:
        """What it would run and cost. Raises SweepError if it cannot be launched, or would not repeat the settings."""
        launch = resolve(self.experiments, replace(self.request, action=Action.PLAN))
        if refused := launch.preflight.refusal():
            raise SweepError(refused)
        launch = price(plan(identify(launch)))
        if text := unresolved_text(launch.plan):
            raise SweepError(f"Nothing was started: {text}")
        for key, run in zip(self.repeated, launch.runs, strict=False):
            if run.key != key:
                raise SweepError(
                    f"The run {key} would be another one now ({run.key}), so a further seed would not be one of the "
                    "same setting: since it was trained, its config files, its data, the trainer or the current folder "
                    "has changed. Change that back, or launch the sweep again, and settle that one."
                )
        return launch

    def prices(self) -> dict[SeedRun, float]:
        """The most dollars that each unfinished run may cost; those of preparing are added to the first. A run whose
        price is unknown has none."""
        launch = self.planned()
        assert launch.cost is not None
        preparing = launch.cost.preparing.high if launch.cost.preparing else 0.0
        by_key = {one.key: one.dollars.high for one in launch.cost.runs if one.dollars is not None}
        keys = [run.key for run in launch.runs[len(self.repeated) :]]
        prices = {one: by_key[key] for one, key in zip(self.runs, keys, strict=True) if key in by_key}
        first = next(iter(prices), None)
        return prices if first is None else {**prices, first: prices[first] + preparing}

    def launch(self, budget: float | None, *, confirmed: bool) -> list[RunResult]:
        """Run them as runs of the sweep; one result for each, without those of the repeated runs."""
        request = replace(self.request, budget=budget, confirmed=confirmed)
        with refusals_with_text():
            return run_sweep(self.experiments, request, lambda *_: None)[len(self.repeated) :]


def compose(store: Store, sweep: str, runs: Sequence[SeedRun]) -> Seeds:
    """Raises SweepError for overrides that cannot be composed any more."""
    known = {run.key: run for run in Ledger(store, sweep).plan().runs}
    root = store.root.parent if is_mirror(store) else store.root
    seeds: dict[str, list[int]] = {}
    for one in runs:
        seeds.setdefault(one.like, []).append(one.seed)
    repeated: list[Experiment] = []
    further: list[Experiment] = []
    request: Request | None = None
    for key, values in seeds.items():
        overrides = known[key].overrides
        (again,), request = _composed(overrides, root)
        without = [one for one in overrides if parts(one).key not in SEED]
        swept, _ = _composed([*without, f"seed={','.join(map(str, values))}"], root)
        repeated.append(again)
        further += swept
    assert request is not None, "a round has a run"
    ordered = tuple(SeedRun(key, value) for key, values in seeds.items() for value in values)
    return Seeds((*repeated, *further), replace(request, sweep=sweep), ordered, tuple(seeds))


def refuse_budget(launch: Launch, dollars: float) -> str:
    """Why a planned launch is over that many dollars; empty if it is not."""
    assert launch.cost is not None
    return over_budget(launch.cost, replace(launch.request, budget=dollars))


def _composed(overrides: Sequence[str], root: Path) -> tuple[list[Experiment], Request]:
    found: list[tuple[list[Experiment], Request]] = []

    def collect(experiments: list[Experiment], request: Request) -> list[RunResult]:
        found.append((experiments, request))
        return []

    application.run(request_words([*overrides, *NO_SEARCH], str(root)), collect, refuse_pages)
    return found[-1]
