"""A sweep's runs -> its settings, compared by their losses on the held-out rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modal_app.store.facts import TrainFacts
from modal_app.store.layout import Store
from modal_app.store.step import FailureReason
from runner.compare.even_dollars import even_dollars
from runner.compare.flags import DIVERGED
from runner.compare.params import label
from runner.compare.ranking import Row, rows_from
from runner.compare.row_losses import judgeable, losses_of
from runner.compare.settings import without_seeds
from runner.compare.source import RunFacts, facts_of_sweep
from runner.compare.verdicts import judged_of
from runner.errors import SweepError
from runner.executors.refresh import look_again
from runner.settle.policy import Estimate, Terms
from runner.store.ledger import Ledger
from runner.verdict.intervals import intervals


@dataclass(frozen=True, slots=True)
class Sweep:
    """A sweep and what is known of its runs."""

    store: Store
    id: str
    facts: Mapping[str, RunFacts]
    """By run key."""
    rows: Sequence[Row]
    estimate: Estimate

    def runs_of(self, setting: int) -> tuple[str, ...]:
        return self.estimate.judged.runs[setting]

    def setting_of(self, run: str) -> int | None:
        """The setting of a run; None if it is not judged."""
        return next((at for at, runs in enumerate(self.estimate.judged.runs) if run in runs), None)

    @property
    def diverged(self) -> Mapping[str, str]:
        """The runs that cannot win, since a seed of their setting has diverged, and the name of that setting."""
        return diverged_settings(self.rows)

    def key_of(self, like: str, seed: int) -> str | None:
        """The run that repeats another one with this seed; None if it was never launched."""
        config = without_seeds(self.facts[like].config)
        fits = (key for key, one in self.facts.items() if one.config.get("seed") == seed)
        return next((key for key in fits if without_seeds(self.facts[key].config) == config), None)

    def params(self, setting: int) -> dict[str, Any]:
        """What differs between the settings."""
        key = self.runs_of(setting)[0]
        return without_seeds(next(row.params for row in self.rows if row.key == key))

    def name(self, setting: int) -> str:
        return label(self.params(setting)) or self.runs_of(setting)[0]

    def dollars(self, keys: Sequence[str]) -> float:
        """What these runs have cost so far."""
        return sum(self.facts[key].dollars or 0.0 for key in keys if key in self.facts)

    def cost_of(self, setting: int) -> float | None:
        """The mean cost of a run: dollars with an even share of the containers' starts, or seconds of training if a
        contender has a run without a price. None if unknown."""
        facts, even = [self.facts[key] for key in self.runs_of(setting)], even_dollars(self.rows)
        costs = [(even.get(one.key) or one.dollars) if self.is_priced else one.train_seconds for one in facts]
        known = [cost for cost in costs if cost is not None]
        return sum(known) / len(known) if len(known) == len(facts) else None

    @property
    def is_priced(self) -> bool:
        """Whether the costs of contenders are dollars."""
        return all(self.facts[key].dollars is not None for one in self.estimate.group for key in self.runs_of(one))

    @property
    def cheapest(self) -> int:
        """The cheapest of the contenders; the leader if the cost of one is unknown."""
        costs = {one: self.cost_of(one) for one in self.estimate.group}
        known = {one: cost for one, cost in costs.items() if cost is not None}
        return min(known, key=known.__getitem__) if len(known) == len(costs) else self.estimate.leader


def diverged_settings(rows: Sequence[Row]) -> dict[str, str]:
    """The settings with a diverged seed, by run. A run that ended far above its first loss is judged normally if it is
    its setting's only run."""
    broken = [row for row in rows if row.reason is FailureReason.NAN]
    far_off = [row for row in rows if DIVERGED in row.flags and row.final is not None and math.isfinite(row.final)]
    out = {row.setting for row in (*broken, *far_off) if not row.can_win}
    return {row.key: label(without_seeds(row.params)) or row.key for row in rows if row.setting in out}


def read_sweep(store: Store, sweep: str, terms: Terms) -> Sweep:
    """Read the settings of a sweep, with intervals at the level of one look. Raises SweepError if the settings cannot
    be compared by these rows."""
    look_again(store, sweep, Ledger(store, sweep).plan().runs)
    facts = facts_of_sweep(store, sweep)
    rows = rows_from(facts)
    _check_comparable(sweep, facts, rows)
    if not (found := judged_of(rows)):
        out = dict.fromkeys(diverged_settings(rows).values())
        but = f" Settings with a diverged seed are left out: {'; '.join(out)}." if out else ""
        raise SweepError(
            f"{sweep} has fewer than two settings with a finished run, so there is nothing to settle.{but} "
            f"`axosweep status {sweep}` shows its runs."
        )
    estimate = Estimate(found[0], intervals(found[0], level=terms.level))
    return Sweep(store, sweep, {one.key: one for one in facts}, rows, estimate)


def _check_comparable(sweep: str, facts: Sequence[RunFacts], rows: Sequence[Row]) -> None:
    finished = judgeable(rows)
    fingerprints = {row.eval_fingerprint for row in finished}
    if len(fingerprints) > 1:
        raise SweepError(
            f"The runs of {sweep} are evaluated on {len(fingerprints)} different sets of held-out rows, so their "
            "losses cannot be compared, even with further seeds. `axosweep compare` shows which runs share their "
            "rows. Launch these runs as a sweep of their own, and settle that sweep."
        )
    if lacking := [row for row in finished if losses_of(row) is None]:
        keys_text = ", ".join(row.key for row in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        if reason := next((why for row in lacking if (why := TrainFacts.of(row.record).no_row_losses)), None):
            raise SweepError(f"{sweep} cannot be settled by losses of rows: {reason} ({keys_text}).")
        raise SweepError(
            f"{len(lacking)} of the {len(finished)} finished runs of {sweep} have no per-row losses, which tell "
            f"settings apart: {keys_text}. `axosweep eval {sweep}` adds them."
        )
    keys = {row.key for row in finished}
    if any(one.config.get("data.seed") is None for one in facts if one.key in keys):
        raise SweepError(
            f"{sweep} was launched with data.seed=null, so each seed is evaluated on other held-out rows. Launch it "
            "with data.seed=42: then all seeds share their rows."
        )
