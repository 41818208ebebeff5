"""Rows of a comparison -> for each eval fingerprint, which settings are the best, as far as the held-out rows tell.

One evaluation has two means. Runs are ranked by Axolotl's eval loss, a mean over batches: it is what training logs,
what W&B shows and what old stores have. A verdict is about the mean over tokens: that does not depend on which rows
happen to share a batch, and a bootstrap over documents needs a ratio of sums. The ranking stays what it was; where the
two means disagree about the best setting, the verdict says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runner.compare.ranking import Row
from runner.compare.row_losses import judgeable, losses_of
from runner.compare.seeds_elsewhere import seeds_elsewhere
from runner.compare.settings import pooled_sd, without_seeds
from runner.compare.verdict_types import JudgedSetting, Verdict
from runner.compare.verdict_words import Background, sentences
from runner.verdict.intervals import Intervals, intervals
from runner.verdict.judged import Judged, judged


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verdict is made of."""

    verdict: Verdict
    judged: Judged
    intervals: Intervals
    """Of `judged.settings`, which are not in the verdict's order."""


def evidence_of(rows: Sequence[Row]) -> list[Evidence]:
    """One for each eval fingerprint with losses by row of two settings at least. `rows`: ranked by their eval loss."""
    found: dict[str, list[Row]] = {}
    for row in judgeable(rows):
        found.setdefault(str(row.eval_fingerprint), []).append(row)
    several = [_evidence(fingerprint, ones) for fingerprint, ones in found.items()]
    return [one for one in several if one is not None]


def _evidence(fingerprint: str, rows: Sequence[Row]) -> Evidence | None:
    losses = {row.key: found for row in rows if (found := losses_of(row)) is not None}
    settings: dict[str, list[str]] = {}
    for row in rows:
        settings.setdefault(str(row.setting), []).append(row.key)
    of = judged(settings, losses)
    if of is None or len(of.settings) < 2:
        return None
    against = intervals(of)
    verdict = Verdict(
        eval_fingerprint=fingerprint,
        settings=_judged_settings(of, against, {row.key: row for row in rows}),
        rows=len(of.tokens),
        documents=len(set(of.document.tolist())),
        documents_known=of.documents_known,
        seed_sd=against.seeds.sd if against.seeds else None,
        seed_degrees=against.seeds.degrees if against.seeds else sum(len(runs) - 1 for runs in of.runs),
        without_rows=tuple(row.key for row in rows if row.key not in losses),
        left_out=tuple(key for key in losses if not any(key in runs for runs in of.runs)),
    )
    background = Background(
        sweeps=tuple(dict.fromkeys(sweep for row in rows for sweep in row.sweeps)),
        ranked_first=next(one for row in rows if (one := verdict.setting_of(row.key))),
        seeds_here=_seeds_here(of),
        seeds_are_shared=_seeds_are_shared(of, {row.key: row for row in rows}),
        seeds_elsewhere=None if against.seeds else seeds_elsewhere(rows),
    )
    return Evidence(replace(verdict, sentences=tuple(sentences(verdict, background))), of, against)


def _judged_settings(of: Judged, against: Intervals, rows: dict[str, Row]) -> tuple[JudgedSetting, ...]:
    best = min(against.best_group, key=against.means.__getitem__)
    unsteady = set(against.seeds.unsteady if against.seeds else ()) - set(against.best_group)
    order = sorted(range(len(of.settings)), key=lambda at: (at in unsteady, against.means[at]))
    found = [
        JudgedSetting(
            runs=of.runs[at],
            params=without_seeds(rows[of.runs[at][0]].params),
            loss=float(against.means[at]),
            difference=float(against.difference[at, best]),
            low=float(against.low[at, best]),
            high=float(against.high[at, best]),
            in_best_group=at in against.best_group,
            is_unsteady=at in unsteady,
            dollars=_mean([rows[key].dollars for key in of.runs[at]]),
            train_seconds=_mean([rows[key].train_seconds for key in of.runs[at]]),
        )
        for at in order
    ]
    group = [one for one in found if one.in_best_group]
    cheapest = min(group, key=_price if all(one.dollars is not None for one in group) else _seconds)
    return tuple(replace(one, is_cheapest=one is cheapest) for one in found)


def _price(one: JudgedSetting) -> float:
    return np.inf if one.dollars is None else one.dollars


def _seconds(one: JudgedSetting) -> float:
    return np.inf if one.train_seconds is None else one.train_seconds


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None


def _seeds_are_shared(of: Judged, rows: dict[str, Row]) -> bool:
    """Whether all settings were trained with the same seeds."""
    return len({frozenset(rows[key].params.get("seed") for key in runs) for runs in of.runs}) == 1


def _seeds_here(of: Judged) -> float | None:
    """The spread of seeds by the few that there are; None without a setting of several."""
    return pooled_sd((len(means), float(means.std(ddof=1))) for means in of.run_means if len(means) > 1)
