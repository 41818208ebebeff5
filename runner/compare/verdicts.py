"""Rows of a comparison -> for each eval fingerprint, which settings are the best, as far as the held-out rows tell.

One evaluation has two means. Runs are ranked by Axolotl's eval loss, a mean over batches: it is what training logs,
what W&B shows and what old stores have. A verdict is about the mean over tokens: that does not depend on which rows
happen to share a batch, and a bootstrap over documents needs a ratio of sums. The ranking stays what it was; where the
two means disagree about the best setting, the verdict says so.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from modal_app.held_out.row_losses import RowLosses
from runner.compare.even_dollars import even_dollars
from runner.compare.params import labels
from runner.compare.ranking import Row
from runner.compare.row_losses import config_of, has_losses_of_training, judgeable, losses_of, without_rows
from runner.compare.seeds_elsewhere import seeds_elsewhere
from runner.compare.settings import pooled_sd, without_seeds
from runner.compare.verdict_types import JudgedSetting, Verdict
from runner.compare.verdict_words import Background, sentences
from runner.verdict.intervals import Intervals, intervals
from runner.verdict.judged import SettingLosses, judged

MOST_REMEMBERED = 8
_remembered: dict[bytes, Intervals] = {}
"""By all that they depend on: the losses and tokens of each row, and its document."""


def verdicts_on(rows: Sequence[Row]) -> list[Verdict]:
    """One for each eval fingerprint with per-row losses of two settings at least. `rows`: ranked by their eval loss."""
    return [_verdict(*one) for one in _judged_together(rows)]


def judged_of(rows: Sequence[Row]) -> list[SettingLosses]:
    """What each of these verdicts would be made of."""
    return [of for *_, of in _judged_together(rows)]


Losses = Mapping[str, RowLosses]
"""Of each run that has them, by its key."""


def _judged_together(rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row], Losses, SettingLosses]]:
    """The runs of each eval fingerprint, one after another: their losses take most of the memory."""
    alike: dict[str, list[Row]] = {}
    for row in judgeable(rows):
        alike.setdefault(str(row.eval_fingerprint), []).append(row)
    for fingerprint, ones in alike.items():
        losses = {row.key: one for row in ones if (one := losses_of(row)) is not None}
        settings: dict[str, list[str]] = {}
        for row in ones:
            settings.setdefault(str(row.setting), []).append(row.key)
        of = judged(settings, losses)
        if of is not None and len(of.settings) > 1:
            yield fingerprint, ones, losses, of


def _verdict(fingerprint: str, rows: Sequence[Row], losses: Losses, of: SettingLosses) -> Verdict:
    against, by_key = _intervals(of), {row.key: row for row in rows}
    verdict = Verdict(
        eval_fingerprint=fingerprint,
        settings=_judged_settings(of, against, by_key),
        rows=len(of.tokens),
        documents=len(set(of.document.tolist())),
        documents_known=of.documents_known,
        seed_sd=against.seeds.sd if against.seeds else None,
        seed_degrees=against.seeds.degrees if against.seeds else sum(len(runs) - 1 for runs in of.runs),
        seeds_are_shared=_seeds_are_shared(of, by_key),
        without_rows=tuple(row.key for row in rows if row.key not in losses),
        left_out=tuple(key for key in losses if not any(key in runs for runs in of.runs)),
    )
    background = Background(
        sweeps=tuple(dict.fromkeys(sweep for row in rows for sweep in row.sweeps)),
        evaluated_later=sum(not has_losses_of_training(row) for row in rows if row.key in losses),
        ranked_first=next(one for row in rows if (one := verdict.setting_of(row.key))),
        seeds_here=_seeds_here(of),
        seeds_elsewhere=None if against.seeds else seeds_elsewhere(rows),
        without_rows=without_rows([row for row in rows if row.key not in losses]),
    )
    return replace(verdict, sentences=tuple(sentences(verdict, background)))


def _intervals(of: SettingLosses) -> Intervals:
    """As `intervals`, remembered: the end of a launch asks for its table and for its report."""
    digest = hashlib.blake2b()
    for values in (*of.nll, of.tokens, of.document):
        digest.update(repr(values.shape).encode())
        digest.update(np.ascontiguousarray(values).data)
    key = digest.digest()
    if key not in _remembered:
        if len(_remembered) == MOST_REMEMBERED:
            _remembered.clear()
        _remembered[key] = intervals(of)
    return _remembered[key]


def _judged_settings(of: SettingLosses, against: Intervals, rows: dict[str, Row]) -> tuple[JudgedSetting, ...]:
    best = min(against.best_group, key=against.means.__getitem__)
    unsteady = set(against.seeds.unsteady if against.seeds else ()) - set(against.best_group)
    order = sorted(range(len(of.settings)), key=lambda at: (at in unsteady, against.means[at]))
    even = even_dollars([*rows.values()])
    params = [without_seeds(rows[of.runs[at][0]].params) for at in order]
    found = [
        JudgedSetting(
            runs=of.runs[at],
            params=differing,
            name=name or of.runs[at][0],
            loss=float(against.means[at]),
            difference=float(against.difference[at, best]),
            low=float(against.low[at, best]),
            high=float(against.high[at, best]),
            in_best_group=at in against.best_group,
            is_unsteady=at in unsteady,
            dollars=_mean([even[key] for key in of.runs[at]]),
            paid_dollars=_mean([rows[key].dollars for key in of.runs[at]]),
            train_seconds=_mean([rows[key].train_seconds for key in of.runs[at]]),
        )
        for at, differing, name in zip(order, params, labels(params), strict=True)
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


def _seeds_are_shared(of: SettingLosses, rows: dict[str, Row]) -> bool:
    """Whether all settings were trained with the same seeds. Params lack the seeds if another one tells the same runs
    apart."""
    return len({frozenset(config_of(rows[key]).get("seed") for key in runs) for runs in of.runs}) == 1


def _seeds_here(of: SettingLosses) -> float | None:
    """The spread of seeds by the few that there are; None without a setting of several."""
    return pooled_sd((len(means), float(means.std(ddof=1))) for means in of.run_means if len(means) > 1)
