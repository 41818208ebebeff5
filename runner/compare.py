"""Ledger, folders and metrics -> rows: one per run, only the parameters that differ, ranked where ranking is fair.

Rows rank together only within one eval fingerprint: losses on different held-out rows say nothing of each other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from modal_app.layout import Store
from modal_app.state import Phase, StepState, observe
from modal_app.step import StepKind
from runner.costs import allocated, containers, facts_of, run_bill, sweep_rates
from runner.ledger import Ledger, SweepRun
from runner.metrics import read_curves
from runner.params import flat, told_apart
from runner.prices import Rates
from runner.standing import Unbegun, standing, unbegun

OBJECTIVE = "eval_loss"


@dataclass(frozen=True, slots=True)
class Row:
    """One run as it is compared. Losses are None until logged; seconds are those of its last attempt."""

    key: str
    params: Mapping[str, Any]
    """Only what differs between the compared runs."""
    status: str
    message: str
    first: float | None
    best: float | None
    final: float | None
    step: int | None
    max_steps: int | None
    seconds: float | None
    attempts: int
    eval_fingerprint: str | None
    folder: str
    log: str
    """The newest attempt's; of a run that its dataset blocks, that dataset's. Empty before the first attempt."""
    is_best: bool = False
    gpu: str | None = None
    """What its containers were given: `2 x h100`. None where nothing was rented, or no card was seen."""
    paid_seconds: float | None = None
    """Of all its containers, from their start to their last sign; None where nothing was rented."""
    dollars: float | None = None
    """For these seconds; None where there is no price."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The run's facts: world size, phases, the manifest it read, and its containers where it was rented."""


def compare_sweep(store: Store, sweep: str) -> list[Row]:
    """The rows of a sweep, best first within each eval fingerprint, unfinished ones last.

    Raises SweepError when there is no such sweep.
    """
    ledger = Ledger(store, sweep)
    runs, lost = ledger.plan().runs, unbegun(ledger.records())
    params = told_apart([flat_run(store, run) for run in runs], [run.overrides for run in runs])
    rates = sweep_rates(store, sweep, [run.key for run in runs])
    rows = [_row(store, run, values, lost, rates) for run, values in zip(runs, params, strict=True)]
    return _ranked(rows)


def flat_run(store: Store, run: SweepRun) -> dict[str, Any]:
    """The same of a run that was asked for earlier; empty when nothing of it was kept."""
    identity = read_json(store.folder(StepKind.TRAIN, run.key).identity)
    return flat(identity.get("axolotl", {}), identity.get("gpu", {}), identity.get("data", {}))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no file."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _row(store: Store, run: SweepRun, params: Mapping[str, Any], lost: Unbegun, rates: Rates | None) -> Row:
    folder = store.folder(StepKind.TRAIN, run.key)
    state = observe(store, StepKind.TRAIN, run.key)
    curves = read_curves(folder.metrics)
    attempts = folder.attempts()
    train_state = read_json(attempts[-1].train_state) if attempts else {}
    stands = standing(store, run, state, lost)
    rented = containers(folder)
    cost = run_bill(store, run.key, rented, rates) if rented and rates else None
    return Row(
        key=run.key,
        params=params,
        status=stands.word,
        message=stands.message,
        first=curves.first(OBJECTIVE),
        best=curves.best(OBJECTIVE),
        final=curves.final(OBJECTIVE),
        step=curves.step,
        max_steps=train_state.get("max_steps"),
        seconds=state.outcome.seconds if state.outcome else None,
        attempts=len(attempts),
        eval_fingerprint=_eval_fingerprint(store, run, state),
        folder=str(folder.path),
        log=stands.log,
        gpu=allocated(rented),
        paid_seconds=sum(one.seconds for one in rented) if rented else None,
        dollars=cost.dollars if cost else None,
        record=dict(state.outcome.facts if state.outcome else {}) | facts_of(rented),
    )


def _eval_fingerprint(store: Store, run: SweepRun, state: StepState) -> str | None:
    """Which held-out rows the run is judged by: its own record, or that of its dataset while it has none."""
    facts = state.outcome.facts if state.outcome else {}
    return facts.get("eval_fingerprint") or read_json(store.manifest(run.data_key)).get("eval_fingerprint")


def _ranked(rows: Sequence[Row]) -> list[Row]:
    ranked: list[Row] = []
    crowned: set[str | None] = set()
    # Rows whose held-out rows are not known come last, and none of them wins: they may be different rows.
    for row in sorted(rows, key=lambda row: (not row.eval_fingerprint, row.eval_fingerprint or "", _score(row))):
        wins = _score(row) < math.inf and bool(row.eval_fingerprint) and row.eval_fingerprint not in crowned
        if wins:
            crowned.add(row.eval_fingerprint)
        ranked.append(replace(row, is_best=wins))
    return ranked


def _score(row: Row) -> float:
    """The final loss of a finished run; infinite for one that cannot win."""
    usable = row.status == Phase.SUCCEEDED and row.final is not None and math.isfinite(row.final)
    return row.final if usable and row.final is not None else math.inf
