"""The results of runs at the rungs of all searches of a store, so that another search need not evaluate them again."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from modal_app.halving.entries import TERMS, loss_of
from modal_app.halving.snapshot import Reading, Terms
from modal_app.store.layout import Store
from modal_app.store.read_json import read_as
from modal_app.store.rungs import Rungs

Known = Mapping[int, Reading]
"""By optimizer step, what a run has reached there. One that has diverged before a rung has that at the rung's step."""


def readings_by_step(store: Store, runs: Collection[str]) -> dict[str, Known]:
    """What each of these runs has reached at the rungs of any search. A run is the same in all searches, since it has
    the same key."""
    found: dict[str, dict[int, Reading]] = {}
    for path in sorted(store.sweeps.glob(f"*/rungs/*/{TERMS}.json")):
        if (terms := read_as(path, Terms.of)) is not None:
            for run in terms.rates.keys() & set(runs):
                found.setdefault(run, {}).update(_readings(path.parent, terms, run))
    return {run: known for run, known in found.items() if known}


def _readings(folder: Path, terms: Terms, run: str) -> dict[int, Reading]:
    rungs, found = Rungs("", terms.fractions, terms.eta), dict[int, Reading]()
    for rung in range(1, len(terms.fractions) + 1):
        reading = read_as(folder / f"{loss_of(rung, run)}.json", Reading.of)
        if reading is not None:
            found[rungs.steps(reading.max_steps)[rung - 1]] = reading
    return found
