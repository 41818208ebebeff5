"""The noise of seeds as other sweeps of a store show it, for a sweep that has too few seeds itself."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from modal_app.store.layout import Store
from runner.compare.ranking import Row, rows_from
from runner.compare.settings import SEEDS, OverSeeds, pooled_sd
from runner.compare.source import facts_of_sweep, flat_run
from runner.store.ledger import Ledger, SweepRun, sweep_ids

MOST = 3
"""Sweeps to read: a store may have hundreds."""
MOST_RUNS = 24
"""Of each. They know the spread well enough, and a sweep may have hundreds."""


@dataclass(frozen=True, slots=True)
class SeedsElsewhere:
    sweep: str
    sd: float
    """Of the eval losses of runs that differ in nothing but the seed, pooled over the sweep's settings."""
    relative: float
    """The same as a share of the eval loss."""


def seeds_elsewhere(rows: Sequence[Row]) -> SeedsElsewhere | None:
    """The noise in the newest other sweep over seeds in the store of these rows that has the same base model and is
    judged by the same held-out rows. `rows`: of one eval fingerprint."""
    store, first = Store(Path(str(rows[0].store))), rows[0]
    here = {sweep for row in rows for sweep in row.sweeps}
    others = {one: seeds for one in sweep_ids(store) if one not in here and (seeds := _over_seeds(store, one))}
    model = _base_model(store, first.key)
    alike = [sweep for sweep, keys in others.items() if _base_model(store, keys[0]) == model]
    for sweep in alike[:MOST]:
        found = rows_from(facts_of_sweep(store, sweep, others[sweep][:MOST_RUNS]))
        settings = {row.setting: row.over_seeds for row in found if row.eval_fingerprint == first.eval_fingerprint}
        if (pooled := pooled_seeds(one for one in settings.values() if one)) is not None:
            return SeedsElsewhere(sweep, *pooled)
    return None


def pooled_seeds(settings: Iterable[OverSeeds]) -> tuple[float, float] | None:
    """The standard deviation between the seeds of a setting, in nats and as a share of the setting's loss."""
    several = list(settings)
    if any(one.mean <= 0 for one in several):
        return None
    sd, share = pooled_sd((one.n, one.sd) for one in several), pooled_sd((one.n, one.sd / one.mean) for one in several)
    return None if sd is None or share is None else (sd, share)


def _over_seeds(store: Store, sweep: str) -> list[str]:
    """The keys of the runs that were requested with several values of a seed, setting by setting."""
    settings: dict[tuple[str, ...], list[SweepRun]] = {}
    for run in Ledger(store, sweep).plan().runs:
        settings.setdefault(tuple(word for word in run.overrides if not _sets_a_seed(word)), []).append(run)
    return [run.key for runs in settings.values() if len(runs) > 1 for run in runs]


def _sets_a_seed(word: str) -> bool:
    return any(word.lstrip("+").startswith(f"{name}=") for name in SEEDS)


def _base_model(store: Store, run: str) -> object:
    return flat_run(store, run).get("base_model")
