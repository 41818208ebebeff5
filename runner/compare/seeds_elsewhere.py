"""What other sweeps of a store know of the noise of seeds, for a sweep that has too few seeds itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modal_app.store.layout import Store
from runner.compare.ranking import Row, compare_sweep
from runner.compare.settings import SEEDS
from runner.store.ledger import Ledger, sweep_ids

MOST = 3
"""Sweeps to read: a store may have hundreds."""


@dataclass(frozen=True, slots=True)
class SeedsElsewhere:
    sweep: str
    sd: float
    """Of the eval losses of runs that differ in nothing but the seed, pooled over the sweep's settings."""


def seeds_elsewhere(rows: Sequence[Row]) -> SeedsElsewhere | None:
    """Of the newest other sweep over seeds in the store of these rows."""
    store = Store(Path(str(rows[0].store)))
    here = {sweep for row in rows for sweep in row.sweeps}
    others = [one for one in sweep_ids(store) if one not in here and _has_seeds(store, one)]
    for sweep in others[:MOST]:
        if (sd := _pooled(compare_sweep(store, sweep))) is not None:
            return SeedsElsewhere(sweep, sd)
    return None


def _has_seeds(store: Store, sweep: str) -> bool:
    """Whether its runs were requested with several values of a seed."""
    words = {word for run in Ledger(store, sweep).plan().runs for word in run.overrides}
    return any(sum(word.lstrip("+").startswith(f"{name}=") for word in words) > 1 for name in SEEDS)


def _pooled(rows: Sequence[Row]) -> float | None:
    settings = {(row.eval_fingerprint, row.setting): row.over_seeds for row in rows if row.over_seeds}
    degrees = sum(one.n - 1 for one in settings.values())
    squares = sum((one.n - 1) * one.sd**2 for one in settings.values())
    return math.sqrt(squares / degrees) if degrees else None
