"""Losses of held-out rows with a known truth: documents of several rows, seeds, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from runner.verdict.judged import Floats, SettingLosses


@dataclass(frozen=True, slots=True)
class Truth:
    """Standard deviations are in nats per token."""

    differences: Sequence[float]
    """How much worse each setting truly is than the first."""
    seeds: int = 1
    documents: int = 300
    rows: float = 3
    """Of a document, on average."""
    of_seeds: float = 0.0
    """How far a seed moves the loss of all rows together."""
    of_documents: float = 0.1
    """How far a setting moves the loss of a single document, and as much again that of a single row."""
    of_rows_by_seed: float = 0.1
    """How far a seed moves the loss of a single row."""


def losses_with(truth: Truth, random: np.random.Generator) -> SettingLosses:
    document = np.repeat(np.arange(truth.documents), random.geometric(1 / truth.rows, truth.documents))
    tokens = np.ceil(random.lognormal(4, 0.6, len(document)))

    def by_document(sd: float) -> Floats:
        return sd * random.standard_normal(truth.documents)[document]

    def by_row(sd: float) -> Floats:
        return sd * random.standard_normal(len(document))

    hard = 1.5 + by_document(0.5) + by_row(0.5)
    own = [by_document(truth.of_documents) + by_row(truth.of_documents) for _ in truth.differences]
    settings = [hard + worse + one for worse, one in zip(truth.differences, own, strict=True)]

    def train(setting: Floats) -> Floats:
        return tokens * (setting + truth.of_seeds * random.standard_normal() + by_row(truth.of_rows_by_seed))

    nll = tuple(np.stack([train(setting) for _ in range(truth.seeds)]) for setting in settings)
    names = tuple(f"setting {at}" for at in range(len(nll)))
    runs = tuple(tuple(f"{name}, seed {at}" for at in range(truth.seeds)) for name in names)
    return SettingLosses(names, runs, nll, tokens, document, documents_known=True)


def with_rows_as_documents(of: SettingLosses) -> SettingLosses:
    """The mistake of treating rows of one document as independent."""
    return replace(of, document=np.arange(len(of.tokens)), documents_known=False)
