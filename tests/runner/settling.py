"""Settings with known true losses, and a sweep of them that is settled without a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from modal_app.held_out.row_losses import About, RowLosses
from runner.settle.policy import Conclusion, Estimate, Terms, next_seeds, verdict
from runner.verdict.intervals import intervals
from runner.verdict.judged import Floats, SettingLosses

TERMS = Terms(looks=4, worth=0.005, max_seeds=8)
Train = Callable[[int], Floats]
"""A setting -> the loss of each held-out row in a further run, summed over the row's tokens."""


def losses_of(loss: float, rate: float, seed: int, *, rows: int = 40, seed_sd: float = 0.005) -> RowLosses:
    """The losses of a run with that learning rate and seed, on rows that all runs share."""
    number, own = np.arange(rows, dtype=np.uint64), np.random.default_rng([round(rate * 1e6), seed])
    common = np.random.default_rng(0).normal(0.0, 0.3, rows)
    return RowLosses(
        about=About("rows", 10, loss, (), documents_known=True),
        id=number,
        document=number,
        dataset=np.zeros(rows, np.uint16),
        length=np.full(rows, 30, np.int32),
        batch=np.zeros(rows, np.int32),
        turns=np.ones(rows, np.int32),
        tokens=np.full(rows, 20, np.int32),
        nll=20 * (loss + common + own.normal(0.0, seed_sd) + own.normal(0.0, seed_sd, rows)),
    )


@dataclass(slots=True)
class World:
    """Rows of documents, and settings that differ on them: by their `losses`, by row, by seed, and by both."""

    random: np.random.Generator
    losses: Sequence[float]
    seed_sd: float = 0.01
    by_row: float = 0.02
    documents: int = 87
    rows_a_document: int = 1
    tokens: Floats = field(init=False)
    document: np.ndarray[tuple[int], np.dtype[np.intp]] = field(init=False)
    _common: Floats = field(init=False)
    _of_settings: Floats = field(init=False)

    def __post_init__(self) -> None:
        rows = self.documents * self.rows_a_document
        self.document = np.repeat(np.arange(self.documents), self.rows_a_document)
        self.tokens = self.random.integers(20, 60, rows).astype(np.float64)
        self._common = self.random.normal(0.0, 0.4, self.documents)[self.document]
        own = self.random.normal(0.0, self.by_row, (len(self.losses), self.documents))[:, self.document]
        self._of_settings = np.asarray(self.losses)[:, None] + own

    def train(self, setting: int) -> Floats:
        seed = self.random.normal(0.0, self.seed_sd) + self.random.normal(0.0, self.by_row, len(self.tokens))
        losses: Floats = (self._common + self._of_settings[setting] + seed) * self.tokens
        return losses

    def judged(self, runs: Sequence[Sequence[Floats]]) -> SettingLosses:
        return SettingLosses(
            settings=tuple(str(one) for one in range(len(runs))),
            runs=tuple(tuple(f"{one}.{seed}" for seed in range(len(several))) for one, several in enumerate(runs)),
            nll=tuple(np.stack(several) for several in runs),
            tokens=self.tokens,
            document=self.document,
            documents_known=True,
        )


@dataclass(frozen=True, slots=True)
class Played:
    verdict: Conclusion | None
    group: tuple[int, ...]
    """The contenders at the end, best first."""
    runs: int
    """All of them, with the first one of each setting."""
    looks: int


def play(judged: Callable[[Sequence[Sequence[Floats]]], SettingLosses], train: Train, settings: int,
         terms: Terms = TERMS, *, draws: int = 1000) -> Played:  # fmt: skip
    """Settle so many settings, each with one run at first."""
    runs = [[train(setting)] for setting in range(settings)]
    looks = 0
    while True:
        of = judged(runs)
        now = Estimate(of, intervals(of, draws=draws, level=terms.level, seed=sum(map(len, runs))))
        found = None
        if now.intervals.seeds is not None:
            looks, found = looks + 1, verdict(now, terms)
        further = [] if found or looks == terms.looks else next_seeds(now, terms, terms.looks - looks)
        if not further:
            return Played(found, now.group, sum(map(len, runs)), looks)
        for setting in further:
            runs[setting].append(train(setting))
