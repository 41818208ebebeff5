"""What the runs of a search have reached, from its store."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from modal_app.store.layout import Store
from modal_app.store.step import FailureReason
from runner.compare.metric_names import logged_name
from runner.compare.ranking import EVAL_LOSS, Metric, Row, higher_is_better, metrics_of, rows_from, score
from runner.compare.source import facts_of_sweep
from runner.errors import SweepError
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus


@dataclass(frozen=True, slots=True)
class Results:
    """The results of a sweep's runs, by key."""

    rows: Mapping[str, Row]
    metric: Metric
    dollars: Mapping[str, float]
    """What each has cost so far, where something was rented."""

    def unfinished(self, keys: Collection[str]) -> list[str]:
        """Those that have neither succeeded nor failed."""
        return [key for key in keys if not self._has_ended(key)]

    def to_repeat(self, keys: Collection[str]) -> list[str]:
        """Those that have neither succeeded nor diverged."""
        return [key for key in keys if not (self._succeeded(key) or self.diverged(key))]

    def diverged(self, key: str) -> bool:
        """Whether it would only diverge again."""
        row = self.rows.get(key)
        return row is not None and row.status is RunStatus.FAILED and row.reason is FailureReason.NAN

    def loss(self, keys: Sequence[str]) -> float | None:
        """The mean over the runs of a setting, the smaller, the better: infinite if it has diverged, None if none of
        them has a value."""
        rows = [self.rows[key] for key in keys if key in self.rows]
        values = [row.final for row in rows if row.can_win and row.final is not None]
        if values:
            return statistics.fmean(score(value, self.metric) for value in values)
        broken = any(self.diverged(row.key) or (row.final is not None and not row.can_win) for row in rows)
        return math.inf if broken else None

    def refuse_other_rows(self) -> None:
        """Raises SweepError if the runs are evaluated on different held-out rows: their losses cannot be compared."""
        rows = [row for row in self.rows.values() if row.status is RunStatus.SUCCEEDED]
        if len({row.eval_fingerprint for row in rows}) > 1:
            raise SweepError(
                "The runs of this search are evaluated on different held-out rows, so it is unknown which is better. "
                "Search over axes that do not change the data, or use search=grid."
            )

    def _succeeded(self, key: str) -> bool:
        return key in self.rows and self.rows[key].status is RunStatus.SUCCEEDED

    def _has_ended(self, key: str) -> bool:
        row = self.rows.get(key)
        return row is not None and row.status in (RunStatus.SUCCEEDED, RunStatus.FAILED)


def read_results(store: Store, sweep: str, metric: str, *, maximize: bool = False) -> Results:
    """The results; none if the sweep was never launched. Raises SweepError for a metric that finished runs have not
    logged."""
    name = logged_name(metric)
    if not (Ledger(store, sweep).folder / "plan.json").exists():
        return Results({}, Metric(name, maximize), {})
    facts = facts_of_sweep(store, sweep)
    found = Metric(name, maximize or higher_is_better(name, facts))
    finished = any(one.status is RunStatus.SUCCEEDED for one in facts)
    rows = rows_from(facts, found if finished or name in metrics_of(facts) else EVAL_LOSS)
    dollars = {one.key: one.dollars for one in facts if one.dollars is not None}
    return Results({row.key: row for row in rows}, found, dollars)
