"""The status of every sweep, read from the folders of its runs; no Hydra, no Axolotl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from modal_app.store.layout import Store
from modal_app.store.state import observe
from modal_app.store.step import StepKind
from runner.cost.spent import sweep_cost
from runner.store.ledger import Ledger, SweepRun, last_activity, sweep_ids
from runner.store.run_state import RunStatus, Unbegun, run_state, unbegun


@dataclass(frozen=True, slots=True)
class SweepStatus:
    sweep: str
    created_at: float
    """Unix seconds."""
    runs: int
    counts: Mapping[RunStatus, int]
    """Status -> number of runs, without those that no run has."""
    dollars: float | None = None
    """For its runs and what they needed; None if nothing was rented."""
    note: str = ""
    """The text of --note."""


@dataclass(frozen=True, slots=True)
class SweepList:
    """What `status --json` prints; with a sweep's name, it prints what `compare` does."""

    store: str
    sweeps: tuple[SweepStatus, ...]


def all_sweeps(*stores: Store) -> list[SweepStatus]:
    """Every sweep of these stores, the one that was launched last comes first."""
    known = [(store, sweep) for store in stores for sweep in sweep_ids(store)]
    known.sort(key=lambda one: last_activity(*one), reverse=True)
    return [sweep_status(store, sweep) for store, sweep in known]


def sweep_status(store: Store, sweep: str) -> SweepStatus:
    """Raises SweepError when there is no such sweep."""
    ledger = Ledger(store, sweep)
    plan, lost = ledger.plan(), unbegun(ledger.records())
    counts = Counter(_status(store, run, lost) for run in plan.runs)
    cost = sweep_cost(store, sweep, plan.runs)
    dollars = cost.bill.dollars if cost else None
    return SweepStatus(sweep, plan.created_at, len(plan.runs), dict(counts), dollars, plan.note)


def _status(store: Store, run: SweepRun, lost: Unbegun) -> RunStatus:
    return run_state(store, run, observe(store, StepKind.TRAIN, run.key), lost).status
