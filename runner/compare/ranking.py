"""Facts of runs -> rows: one per run, with only the parameters that differ, ranked where ranking is fair. Pure.

Rows rank together only within one eval fingerprint: losses on different held-out rows cannot be compared.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.step import FailureReason
from runner.compare.flags import DIVERGED, HEALED, flags_of
from runner.compare.measured import is_of_a_task
from runner.compare.params import shown_params
from runner.compare.settings import OverSeeds, over_seeds, settings_of
from runner.compare.source import RunFacts, facts_of_sweep
from runner.cost.receipt import Receipt
from runner.errors import SweepError, did_you_mean
from runner.store.run_state import RunStatus
from runner.store.searches import RungReached

OBJECTIVE = "eval_loss"


@dataclass(frozen=True, slots=True)
class Row:
    """One run of a comparison. Numbers are null while they are unknown, and if they are NaN."""

    key: str
    """The run's key: its folder's name, and what `logs`, `cancel` and `compare` take."""
    params: Mapping[str, Any]
    """Only what differs between the compared runs, by dotted name."""
    status: RunStatus
    """The class of a failure is in `reason`."""
    message: str
    """Why it has this status, in one line; empty if all is well."""
    first: float | None
    """The metric's first value. Of `eval_loss` that is the untrained model's."""
    best: float | None
    """Its smallest value, or the largest with --maximize."""
    final: float | None
    """Its last value, which belongs to the stored adapter. Runs are ranked by it."""
    step: int | None
    """The last optimizer step that logged anything."""
    max_steps: int | None
    """The step at which it ends."""
    seconds: float | None
    """Of all its attempts, each from the worker's start to its end; null while it runs."""
    attempts: int | None
    """Null if read from W&B, where all attempts are one run."""
    eval_fingerprint: str | None
    """Identifies the held-out rows that it is judged by, or for a task's metric the questions; rows can be compared
    only if this is equal. Null if unknown."""
    folder: str | None
    """Contains all files of the run. Null if read from W&B."""
    log: str | None
    """The newest attempt's log, or the dataset's log if its dataset blocks the run. Empty before the first attempt;
    null if read from W&B."""
    is_best: bool = False
    """The best among the finished runs of the same eval fingerprint. If several seeds of a setting have finished, their
    mean counts, and this is the best run of the best setting."""
    over_seeds: OverSeeds | None = None
    """The finished runs that differ from it in nothing but the seed, and itself; null if there are no others."""
    gpu: str | None = None
    """The GPUs of its containers: `2 x h100`. Null if nothing was rented, or no GPU was seen."""
    paid_seconds: float | None = None
    """Of all its containers, from their start to their last sign of life; null if nothing was rented."""
    dollars: float | None = None
    """For these seconds; null if there is no price."""
    record: Mapping[str, Any] = field(default_factory=dict)
    """The run's facts: world size, phases, the dataset's manifest, and its containers if they were rented."""
    data_key: str = ""
    """The prepared dataset that it reads."""
    sweeps: tuple[str, ...] = ()
    """The compared sweeps that contain it."""
    overrides: tuple[str, ...] = ()
    """The request's overrides of the defaults."""
    store: str | None = ""
    """The folder with the results. Null if read from W&B."""
    reason: FailureReason | None = None
    """Why it has failed, stopped or was lost; null otherwise."""
    rung: int | None = None
    """The rung of its search at which it has stopped; null otherwise."""
    rungs: tuple[RungReached, ...] = ()
    """What it has reached at each rung: only there is a stopped run compared with others. Empty without rungs."""
    flags: tuple[str, ...] = ()
    """Any of diverged, flat, overfits, healed."""
    train_seconds: float | None = None
    """Of the optimizer steps of all attempts."""
    tokens: int | None = None
    """The tokens that it has trained on and that count in the loss."""
    tokens_per_second: float | None = None
    """`tokens` divided by `train_seconds`, of all its GPUs together."""
    peak_memory_gib: float | None = None
    """The most memory that was in use on one GPU; null on a CPU."""
    measured: Mapping[str, float] = field(default_factory=dict)
    """What `axosweep eval` has measured, by name: `eval_loss`, `tasks/<task>/<metric>`."""
    setting: int = 0
    """The place of its setting, from 0; the same for the runs that differ from it in nothing but the seed."""
    advice: tuple[str, ...] = ()
    """What would have fitted, and a command for it, if it was out of memory on a GPU; empty otherwise."""
    healed: str | None = None
    """How its batch differs from the requested one, since it was out of memory (on_oom=halve); null if it does not."""
    receipt: Receipt | None = None
    """What its seconds were used for; null before its first attempt."""
    can_win: bool = False
    """Whether it has finished with a value, and nothing keeps its setting from winning, such as a NaN."""


@dataclass(frozen=True, slots=True)
class Metric:
    """What runs are compared by: a logged name, and whether a larger value is better."""

    name: str = OBJECTIVE
    maximize: bool = False


EVAL_LOSS = Metric()


def compare_sweep(store: Store, sweep: str) -> list[Row]:
    """The rows of a sweep by eval loss, best first within each eval fingerprint, unfinished ones last.

    Raises SweepError when there is no such sweep.
    """
    return rows_from(facts_of_sweep(store, sweep))


def rows_from(facts: Sequence[RunFacts], metric: Metric = EVAL_LOSS) -> list[Row]:
    """The rows of facts from any source. Raises SweepError for a metric that none of these runs has logged."""
    _check(metric, facts)
    params = shown_params([one.config for one in facts], [one.overrides for one in facts])
    settings = settings_of([one.config for one in facts])
    return _ranked(
        [
            _Entry(_row(one, values, metric), _rank(one, metric), setting, one.had_nan)
            for one, values, setting in zip(facts, params, settings, strict=True)
        ]
    )


def metrics_of(facts: Sequence[RunFacts]) -> list[str]:
    """Every metric that was logged by one of these runs, or measured later."""
    return sorted({name for one in facts for name in (*one.curves.metrics, *one.measured)})


def higher_is_better(name: str, facts: Sequence[RunFacts]) -> bool:
    """Whether the measurements of this metric are marked so."""
    return any(name in one.measured and one.measured[name].higher_is_better for one in facts)


def score(value: float | None, metric: Metric) -> float:
    """The smaller, the better; infinite for what cannot win."""
    if value is None or not math.isfinite(value):
        return math.inf
    return -value if metric.maximize else value


def _check(metric: Metric, facts: Sequence[RunFacts]) -> None:
    known = metrics_of(facts)
    if metric.name == OBJECTIVE or metric.name in known:
        return
    logged = f"There are: {', '.join(known)}." if known else "Nothing is logged yet."
    of_task = " `axosweep eval --tasks NAME` measures a task." if is_of_a_task(metric.name) else ""
    meant = did_you_mean(metric.name, known)
    raise SweepError(f"None of these runs has logged {metric.name}.{meant} {logged}{of_task}")


def _row(facts: RunFacts, params: Mapping[str, Any], metric: Metric) -> Row:
    curves = facts.curves
    flags = flags_of(
        curves,
        ended=facts.status is RunStatus.SUCCEEDED,
        nan=facts.had_nan or _broken(facts.final(metric.name)),
    )
    tokens = curves.most("tokens")
    per_second = tokens / facts.train_seconds if tokens and facts.train_seconds else None
    return Row(
        key=facts.key,
        params=params,
        status=facts.status,
        message=facts.message,
        first=curves.first(metric.name),
        best=curves.best(metric.name, maximize=metric.maximize),
        final=facts.final(metric.name),
        step=curves.step,
        max_steps=facts.max_steps,
        seconds=facts.seconds,
        attempts=facts.attempts,
        eval_fingerprint=facts.judged_by(metric.name),
        folder=facts.folder,
        log=facts.log,
        gpu=facts.gpu,
        paid_seconds=facts.paid_seconds,
        dollars=facts.dollars,
        record=facts.record,
        data_key=facts.data_key,
        sweeps=facts.sweeps,
        overrides=facts.overrides,
        store=facts.store,
        reason=facts.reason,
        rung=facts.rung or None,
        rungs=facts.rungs,
        flags=(*flags, HEALED) if facts.healed else flags,
        healed=facts.healed,
        train_seconds=facts.train_seconds,
        tokens=None if tokens is None else round(tokens),
        tokens_per_second=None if per_second is None else round(per_second, 1),
        peak_memory_gib=facts.peak_memory_gib,
        measured={name: one.value for name, one in facts.measured.items()},
        advice=facts.advice,
        receipt=facts.receipt,
    )


def _broken(value: float | None) -> bool:
    return value is not None and not math.isfinite(value)


@dataclass(frozen=True, slots=True)
class _Entry:
    row: Row
    rank: float
    setting: str
    """Equal for the runs that differ only in their seed."""
    had_nan: bool

    @property
    def group(self) -> tuple[str | None, str]:
        return self.row.eval_fingerprint, self.setting


def _ranked(entries: Sequence[_Entry]) -> list[Row]:
    groups: dict[tuple[str | None, str], list[_Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.group, []).append(entry)
    rank = {group: (_group_rank(ones), *_stop_rank(ones), place) for place, (group, ones) in enumerate(groups.items())}
    spread = {
        group: over_seeds([one.row.final for one in ones if one.rank < math.inf and one.row.final is not None])
        for group, ones in groups.items()
    }
    ranked: list[Row] = []
    crowned: set[str | None] = set()
    places: dict[tuple[str | None, str], int] = {}
    # Runs whose held-out rows are unknown come last, and none of them wins, since these rows may differ.
    for one in sorted(
        entries,
        key=lambda one: (*by_held_out(one.row.eval_fingerprint), rank[one.group], one.rank),
    ):
        able = one.rank < math.inf and rank[one.group][0] < math.inf
        wins = able and bool(one.row.eval_fingerprint) and one.row.eval_fingerprint not in crowned
        if wins:
            crowned.add(one.row.eval_fingerprint)
        place = places.setdefault(one.group, len(places))
        ranked.append(replace(one.row, is_best=wins, over_seeds=spread[one.group], setting=place, can_win=able))
    return ranked


def _group_rank(entries: Sequence[_Entry]) -> float:
    """The mean over the finished runs of a setting; infinite for a setting that cannot win."""
    finished = [one.rank for one in entries if one.row.status is RunStatus.SUCCEEDED]
    out = _cannot_win([one.row for one in entries], had_nan=any(one.had_nan for one in entries))
    return statistics.fmean(finished) if finished and not out else math.inf


def _stop_rank(entries: Sequence[_Entry]) -> tuple[int, float]:
    """The order of settings without a finished run: those that came to the last rung first, by their loss there."""
    last = [one.row.rungs[-1] for one in entries if one.row.status is RunStatus.AT_RUNG and one.row.rungs]
    return min(((-one.rung, math.inf if one.loss is None else one.loss) for one in last), default=(0, math.inf))


def _cannot_win(rows: Sequence[Row], *, had_nan: bool) -> bool:
    """Whether the runs of a setting keep it from winning: one of them had a NaN, finished or not, or one of several
    seeds has diverged."""
    return had_nan or (len(rows) > 1 and any(DIVERGED in row.flags for row in rows))


def by_held_out(fingerprint: str | None) -> tuple[bool, str]:
    """The order of tables."""
    return not fingerprint, fingerprint or ""


def _rank(facts: RunFacts, metric: Metric) -> float:
    """The final value of a finished run; infinite for one that cannot win, such as one with a NaN in any loss."""
    usable = facts.status is RunStatus.SUCCEEDED and not facts.had_nan
    return score(facts.final(metric.name), metric) if usable else math.inf
