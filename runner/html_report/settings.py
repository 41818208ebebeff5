"""The rows of a report -> its settings: the runs that differ only in their seeds. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.compare.params import label
from runner.compare.ranking import Row
from runner.compare.settings import without_seeds
from runner.store.run_state import RunStatus


@dataclass(frozen=True, slots=True)
class Setting:
    rows: tuple[Row, ...]
    """The best first."""
    n: int
    """How many of its runs have finished with a value. The mean and the sd are computed from these."""
    mean: float | None
    """Of the final values; null if it cannot win, since a loss was NaN or a seed has diverged."""
    sd: float | None
    """Their sample standard deviation; null for fewer than two."""

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(row.key for row in self.rows)

    @property
    def eval_fingerprint(self) -> str | None:
        return self.rows[0].eval_fingerprint

    @property
    def params(self) -> Mapping[str, Any]:
        return without_seeds(self.rows[0].params)

    @property
    def name(self) -> str:
        return label(self.params) or label(self.rows[0].params) or self.rows[0].key


def settings(rows: Sequence[Row]) -> list[Setting]:
    """In the order of the rows, which is the best first within each eval fingerprint."""
    members: dict[int, list[Row]] = {}
    for row in rows:
        members.setdefault(row.setting, []).append(row)
    return [_setting(ones) for ones in members.values()]


def ranked(found: Sequence[Setting]) -> list[list[Setting]]:
    """The settings that can win, grouped by their held-out rows, the best of each group first."""
    groups: dict[str, list[Setting]] = {}
    for one in found:
        if one.mean is not None and one.eval_fingerprint:
            groups.setdefault(one.eval_fingerprint, []).append(one)
    return list(groups.values())


def is_ranked(row: Row) -> bool:
    """Whether it has finished with a metric on known rows."""
    finite = row.final is not None and math.isfinite(row.final)
    return row.status is RunStatus.SUCCEEDED and finite and bool(row.eval_fingerprint)


def _setting(rows: Sequence[Row]) -> Setting:
    finals = [row.final for row in rows if is_ranked(row) and row.final is not None]
    seeds = rows[0].over_seeds
    if not finals or not any(row.can_win for row in rows):
        return Setting(tuple(rows), len(finals), None, None)
    return Setting(tuple(rows), len(finals), seeds.mean if seeds else finals[0], seeds.sd if seeds else None)
