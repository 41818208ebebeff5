"""Rows of a comparison -> for each eval fingerprint, which settings are the best, as far as the held-out rows tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modal_app.held_out.row_losses import RowLosses
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.ranking import Row
from runner.compare.settings import without_seeds
from runner.store.run_state import RunStatus
from runner.verdict.intervals import Intervals, intervals
from runner.verdict.judged import Judged, judged


@dataclass(frozen=True, slots=True)
class JudgedSetting:
    """The runs that differ in nothing but the seed, against the best setting."""

    runs: tuple[str, ...]
    params: Mapping[str, Any]
    """What differs between the compared settings."""
    loss: float
    """The mean over all trained tokens of the held-out rows, and over the seeds, in nats."""
    difference: float
    """Its loss minus that of the best; 0 for the best itself."""
    low: float
    high: float
    """The difference's interval, which holds for all pairs at once with 95 % confidence."""
    in_best_group: bool
    """Whether no other setting is shown to be better."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the finished runs of one eval fingerprint."""

    eval_fingerprint: str
    settings: tuple[JudgedSetting, ...]
    """Best first."""
    rows: int
    documents: int
    documents_known: bool
    """Else each row is taken as a document of its own."""
    seed_sd: float | None
    """How much the loss of one setting differs from seed to seed; null if that is unknown."""
    seed_degrees: int
    without_rows: tuple[str, ...]
    """Finished runs that have no losses by row: `axosweep eval` adds them."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is made of."""

    verdict: Verdict
    judged: Judged
    intervals: Intervals
    """Of `judged.settings`, which are not in the verdict's order."""


def evidence_of(rows: Sequence[Row]) -> list[Evidence]:
    """One for each eval fingerprint with losses by row of two settings at least. `rows`: ranked ones."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.eval_fingerprint and row.status is RunStatus.SUCCEEDED:
            found.setdefault(row.eval_fingerprint, []).append(row)
    several = [_evidence(fingerprint, ones) for fingerprint, ones in found.items()]
    return [one for one in several if one is not None]


def losses_of(row: Row) -> RowLosses | None:
    """From its last evaluation while it trained."""
    if row.store is None:
        return None
    return RowLosses.read(Store(Path(row.store)).folder(StepKind.TRAIN, row.key).losses)


def _evidence(fingerprint: str, rows: Sequence[Row]) -> Evidence | None:
    losses = {row.key: found for row in rows if (found := losses_of(row)) is not None}
    settings: dict[str, list[str]] = {}
    for row in rows:
        settings.setdefault(str(without_seeds(row.params)), []).append(row.key)
    of = judged(settings, losses)
    if of is None or len(of.settings) < 2:
        return None
    against = intervals(of)
    best = int(np.argmin(against.means))
    params = {row.key: without_seeds(row.params) for row in rows}
    judged_settings = [
        JudgedSetting(
            runs=of.runs[at],
            params=params[of.runs[at][0]],
            loss=float(against.means[at]),
            difference=float(against.difference[at, best]),
            low=float(against.low[at, best]),
            high=float(against.high[at, best]),
            in_best_group=at in against.best_group,
        )
        for at in against.means.argsort(kind="stable")
    ]
    verdict = Verdict(
        eval_fingerprint=fingerprint,
        settings=tuple(judged_settings),
        rows=len(of.tokens),
        documents=len(set(of.document.tolist())),
        documents_known=of.documents_known,
        seed_sd=against.seeds.sd if against.seeds else None,
        seed_degrees=against.seeds.degrees if against.seeds else 0,
        without_rows=tuple(row.key for row in rows if row.key not in losses),
    )
    return Evidence(verdict, of, against)
