"""Rows -> groups: the mean and spread of runs that differ only in one parameter, such as the seed. Pure."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.compare.flags import DIVERGED
from runner.compare.params import differing_params, requested_params, same_partition
from runner.compare.ranking import Metric, Row, by_held_out, score
from runner.compare.source import RunFacts
from runner.errors import SweepError, did_you_mean
from runner.store.run_state import RunStatus


@dataclass(frozen=True, slots=True)
class Group:
    """Runs of one eval fingerprint that differ only in the parameters that are averaged over."""

    params: Mapping[str, Any]
    """The parameters that differ between the groups."""
    eval_fingerprint: str | None
    runs: tuple[str, ...]
    """Keys."""
    n: int
    """How many of them have finished with a value. The mean, sd and best are computed from these."""
    mean: float | None
    """Of the metric's final values."""
    sd: float | None
    """Their sample standard deviation; null for fewer than two."""
    best: float | None
    """The best of their final values."""
    diverged: int
    """How many of its runs have diverged."""
    is_best: bool = False
    """Whether it has the best mean of its eval fingerprint; never true if one of its runs has diverged."""


def groups_over(over: Sequence[str], facts: Sequence[RunFacts], rows: Sequence[Row], metric: Metric) -> list[Group]:
    """Best first within each eval fingerprint. Raises SweepError for a parameter that is unknown or never differs."""
    names = _distinguishing_names(over, facts)
    configs = {(one.store, one.key): {name: one.config.get(name) for name in names} for one in facts}
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(json.dumps(configs[row.store, row.key], sort_keys=True), []).append(row)
    members = [ones for same in alike.values() for ones in _by_held_out(same)]
    first = [configs[ones[0].store, ones[0].key] for ones in members]
    requested = requested_params(first, [ones[0].overrides for ones in members])
    shown = differing_params(first, requested)
    return _ranked([_group(params, ones, metric) for params, ones in zip(shown, members, strict=True)], metric)


def split_by_held_out(over: Sequence[str], facts: Sequence[RunFacts]) -> bool:
    """Whether runs that differ only in these parameters are judged by different rows, so that they have no mean."""
    names = _distinguishing_names(over, facts)
    seen: dict[str, set[str | None]] = {}
    for one in facts:
        config = json.dumps({name: one.config.get(name) for name in names}, sort_keys=True)
        seen.setdefault(config, set()).add(one.eval_fingerprint)
    return any(len(fingerprints - {None}) > 1 for fingerprints in seen.values())


def _distinguishing_names(over: Sequence[str], facts: Sequence[RunFacts]) -> list[str]:
    """The parameters that differ, without those in `over`."""
    names = sorted({name for one in facts for name in one.config})
    columns = {name: tuple(json.dumps(one.config.get(name), sort_keys=True) for one in facts) for name in names}
    differing = {name: values for name, values in columns.items() if len(set(values)) > 1}
    for name in over:
        if name not in columns:
            raise SweepError(f"--over {name}: no run here has that key.{did_you_mean(name, names)}")
        if name not in differing:
            known = f" These keys differ: {', '.join(differing)}." if differing else ""
            raise SweepError(f"--over {name}: it is {columns[name][0]} in all these runs.{known}")
    others = [name for name in differing if name not in over]
    if len(set(zip(*(differing[name] for name in others), strict=True))) == len(facts) > 1:
        follow = [name for name in others if any(same_partition(differing[name], differing[one]) for one in over)]
        together = f" {', '.join(follow)} differs with it: --over {' '.join([*over, *follow])}." if follow else ""
        raise SweepError(f"--over {' '.join(over)}: no two runs here differ only in that.{together}")
    return others


def _by_held_out(rows: Sequence[Row]) -> list[list[Row]]:
    """Grouped by eval fingerprint. Runs whose rows are not prepared yet join the others, if those have only one."""
    found: dict[str | None, list[Row]] = {}
    for row in rows:
        found.setdefault(row.eval_fingerprint or None, []).append(row)
    if len(found) == 2 and None in found:
        unknown = found.pop(None)
        (known,) = found.values()
        known += unknown
    return list(found.values())


def _group(params: Mapping[str, Any], rows: Sequence[Row], metric: Metric) -> Group:
    finished = [row.final for row in rows if row.status is RunStatus.SUCCEEDED and row.final is not None]
    values = [value for value in finished if math.isfinite(value)]
    return Group(
        params=params,
        eval_fingerprint=rows[0].eval_fingerprint,  # known ones come first
        runs=tuple(row.key for row in rows),
        n=len(values),
        mean=statistics.fmean(values) if values else None,
        sd=statistics.stdev(values) if len(values) > 1 else None,
        best=min(values, key=lambda value: score(value, metric), default=None),
        diverged=sum(DIVERGED in row.flags for row in rows),
    )


def _ranked(groups: Sequence[Group], metric: Metric) -> list[Group]:
    ranked: list[Group] = []
    crowned: set[str | None] = set()
    for group in sorted(groups, key=lambda one: (*by_held_out(one.eval_fingerprint), _rank(one, metric))):
        known = bool(group.eval_fingerprint) and group.eval_fingerprint not in crowned
        wins = known and not group.diverged and _rank(group, metric) < math.inf
        if wins:
            crowned.add(group.eval_fingerprint)
        ranked.append(replace(group, is_best=wins))
    return ranked


def _rank(group: Group, metric: Metric) -> float:
    return score(group.mean, metric)
