"""The verdict on settings as it is printed: which of them are the best, as far as the held-out rows tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OF_A_RUN = ("loss", "difference", "low", "high", "in_best_group", "is_cheapest")
"""What a CSV and W&B have of the judged setting of a run."""


@dataclass(frozen=True, slots=True)
class JudgedSetting:
    """A setting (the runs that differ only in the seed), compared with the best one."""

    runs: tuple[str, ...]
    """Keys, the run with the lowest eval loss first."""
    params: Mapping[str, Any]
    """What differs between the compared settings."""
    name: str
    """The same as on the command line; the key of its first run if nothing differs."""
    loss: float
    """The mean over all trained tokens of the held-out rows, and over the seeds, in nats."""
    difference: float
    """Its loss minus that of the best; 0 for the best itself."""
    low: float
    high: float
    """The difference's interval, which holds for all pairs at once with 95 % confidence."""
    in_best_group: bool
    """Whether no other setting is shown to be better, and it is not unsteady."""
    is_unsteady: bool = False
    """Whether its seeds differ far more than those of the others, so that one of them has probably diverged."""
    is_cheapest: bool = False
    """Whether it is the cheapest of the best group, by dollars or, where one of the group has no price, by seconds."""
    dollars: float | None = None
    """The mean of its runs, each with an even share of the containers' starts; null if one of them has no price."""
    train_seconds: float | None = None
    """The mean of its runs."""
    paid_dollars: float | None = None
    """The mean of what its runs were billed; null if one of them has no price."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on the finished runs of one eval fingerprint."""

    eval_fingerprint: str
    settings: tuple[JudgedSetting, ...]
    """Best first, unsteady ones last."""
    rows: int
    documents: int
    documents_known: bool
    """Otherwise each row counts as a document of its own."""
    seed_sd: float | None
    """How much the loss of one setting differs from seed to seed; null if that is unknown."""
    seed_degrees: int
    seeds_are_shared: bool
    """Whether all settings were trained with the same seeds."""
    without_rows: tuple[str, ...]
    """Finished runs that have no per-row losses: `axosweep eval` adds them."""
    left_out: tuple[str, ...] = ()
    """Finished runs whose rows are not those of the others, or have a loss that is not finite: they are not judged."""
    sentences: tuple[str, ...] = ()
    """The verdict in a sentence, then what it depends on."""

    @property
    def best_group(self) -> tuple[JudgedSetting, ...]:
        return tuple(one for one in self.settings if one.in_best_group)

    @property
    def may_be_seeds(self) -> bool:
        """Whether the seeds alone may make the differences: they are not the same for all settings, and it is unknown
        how much they matter."""
        return self.seed_sd is None and not self.seeds_are_shared

    def is_decided_for(self, run: str) -> bool:
        """Whether the setting of this run is shown to be better than all others."""
        return not self.may_be_seeds and len(self.best_group) == 1 and run in self.best_group[0].runs

    @property
    def worse(self) -> tuple[JudgedSetting, ...]:
        """Those that are shown to be worse than another."""
        return tuple(one for one in self.settings if not (one.in_best_group or one.is_unsteady))

    @property
    def cheapest(self) -> JudgedSetting:
        return next(one for one in self.settings if one.is_cheapest)

    def setting_of(self, run: str) -> JudgedSetting | None:
        """None for a run that is not judged."""
        return next((one for one in self.settings if run in one.runs), None)


def settings_by_run(verdicts: Sequence[Verdict]) -> dict[str, JudgedSetting]:
    """Those of all verdicts, by the keys of their runs."""
    return {key: one for verdict in verdicts for one in verdict.settings for key in one.runs}
