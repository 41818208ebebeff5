"""How every sweep of a store stands, read from the folders of its runs; no Hydra, no Axolotl."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from modal_app.layout import Store
from modal_app.state import observe
from modal_app.step import StepKind
from runner.ledger import Ledger, sweep_ids


@dataclass(frozen=True, slots=True)
class SweepStatus:
    sweep: str
    created_at: float
    """Unix seconds."""
    runs: int
    counts: Mapping[str, int]
    """Runs by phase: succeeded, running, pending, stopped, failed, lost."""


def all_sweeps(store: Store) -> list[SweepStatus]:
    """Every sweep, the one asked for last comes first."""
    return [sweep_status(store, sweep) for sweep in sweep_ids(store)]


def sweep_status(store: Store, sweep: str) -> SweepStatus:
    """Raises SweepError when there is no such sweep."""
    plan = Ledger(store, sweep).plan()
    phases = Counter(str(observe(store, StepKind.TRAIN, run.key).phase) for run in plan.runs)
    phases["pending"] = phases.pop("absent", 0)
    return SweepStatus(sweep, plan.created_at, len(plan.runs), {key: n for key, n in phases.items() if n})
