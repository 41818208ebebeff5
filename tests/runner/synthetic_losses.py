"""Losses of held-out rows with a known truth: documents of several rows, seeds, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runner.verdict.judged import Floats, Judged


@dataclass(frozen=True, slots=True)
class Truth:
    """Standard deviations are in nats per token."""

    differences: Sequence[float]
    """How much worse each setting is than the first, in truth."""
    seeds: int = 1
    documents: int = 300
    rows: float = 3
    """Of a document, on average."""
    of_seeds: float = 0.0
    """How far a seed moves the loss of all rows alike."""
    of_documents: float = 0.1
    """How far a setting moves the loss of a single document, and as much again that of a single row."""
    of_rows_by_seed: float = 0.1
    """How far a seed moves the loss of a single row."""


class Training:
    """Held-out rows, and settings to train with as many seeds as one likes."""

    def __init__(self, truth: Truth, random: np.random.Generator) -> None:
        self._truth, self._random = truth, random
        self._document = np.repeat(np.arange(truth.documents), random.geometric(1 / truth.rows, truth.documents))
        self._tokens = np.ceil(random.lognormal(4, 0.6, len(self._document)))
        hard = 1.5 + self._by_document(0.5) + self._by_row(0.5)
        own = [self._by_document(truth.of_documents) + self._by_row(truth.of_documents) for _ in truth.differences]
        self._settings = [hard + worse + one for worse, one in zip(truth.differences, own, strict=True)]
        self._seeds: list[list[Floats]] = [[] for _ in truth.differences]

    def train(self, setting: int) -> None:
        """With one seed more."""
        seed = self._truth.of_seeds * self._random.standard_normal() + self._by_row(self._truth.of_rows_by_seed)
        self._seeds[setting].append(self._tokens * (self._settings[setting] + seed))

    def judged(self) -> Judged:
        names = tuple(f"setting {at}" for at in range(len(self._seeds)))
        runs = tuple(
            tuple(f"{name}, seed {at}" for at in range(len(seeds)))
            for name, seeds in zip(names, self._seeds, strict=True)
        )
        return Judged(names, runs, tuple(map(np.stack, self._seeds)), self._tokens, self._document, True)

    def _by_document(self, sd: float) -> Floats:
        return sd * self._random.standard_normal(self._truth.documents)[self._document]

    def _by_row(self, sd: float) -> Floats:
        return sd * self._random.standard_normal(len(self._document))


def losses_with(truth: Truth, random: np.random.Generator) -> Judged:
    training = Training(truth, random)
    for setting in range(len(truth.differences)):
        for _ in range(truth.seeds):
            training.train(setting)
    return training.judged()


def with_rows_as_documents(of: Judged) -> Judged:
    """The mistake of taking rows of one document for independent."""
    return replace(of, document=np.arange(len(of.tokens)), documents_known=False)
