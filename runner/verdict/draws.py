"""The draws of a bootstrap: how often each document is drawn, and what the seeds' noise is taken to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from runner.verdict.judged import Floats

BLOCK = 6_000_000
"""Counts that are in memory at a time: 48 MB. On a busy machine, the threads of a matrix product wait for each other,
so few large products take less time than many small ones."""
AT_A_TIME = 65_536
"""Counts that are drawn by one call, which for a few documents takes longer than drawing them."""


@dataclass(frozen=True, slots=True)
class Draws:
    """The draws of one bootstrap. A row of each array is one draw; all settings share it."""

    counts: Callable[[], Iterator[Floats]]
    """How often each document is drawn, in blocks of draws x documents, each valid until the next. Each
    call gives the same ones."""
    normal: Floats
    """A standard normal for each setting: where the mean over its seeds lies."""
    chi_square: Floats
    """With the degrees of freedom of the seeds' spread."""
    documents_chi_square: Floats
    """With the degrees of freedom of the documents' spread."""

    def means_of(self, sums: Floats, tokens: Floats) -> Floats:
        """The mean over tokens of each column in each draw; 0 if none of its documents is drawn. `sums`, `tokens`: by
        document and column, or the same tokens for all columns."""
        blocks = []
        for counts in self.counts():
            total, drawn = counts @ tokens, counts @ sums
            blocks.append(np.divide(drawn, total, out=np.zeros_like(drawn), where=total > 0))
        return np.concatenate(blocks)


def degrees_of_freedom(tokens: Floats) -> Floats:
    """Of the documents' spread, for each column of `tokens`: one fewer than the documents if they are equally long, and
    far fewer if most of the tokens are in few of them (Satterthwaite)."""
    squares = tokens**2
    degrees: Floats = np.maximum(squares.sum(axis=0) ** 2 / np.maximum((squares**2).sum(axis=0), 1) - 1, 1)
    return degrees


def random_draws(
    documents: int, settings: int, *, seed_degrees: int, document_degrees: float, number: int, seed: int = 0
) -> Draws:
    """The documents that are drawn depend on nothing but their number and the seed."""
    random = np.random.default_rng([seed, 1])
    documents_chi_square = random.chisquare(document_degrees, number)
    chi_square = random.chisquare(max(seed_degrees, 1), number)
    return Draws(
        counts=lambda: _counts(np.random.default_rng([seed, 0]), documents, number),
        normal=random.standard_normal((number, settings)),
        chi_square=chi_square,
        documents_chi_square=documents_chi_square,
    )


def _counts(random: np.random.Generator, documents: int, number: int) -> Iterator[Floats]:
    block = np.empty((min(max(BLOCK // documents, 1), number), documents))
    together = max(AT_A_TIME // documents, 1)
    for start in range(0, number, len(block)):
        counts = block[: number - start]
        for first in range(0, len(counts), together):
            part = counts[first : first + together]
            drawn = random.integers(0, documents, part.shape)
            drawn += np.arange(0, part.size, documents)[:, None]  # each draw counts its documents in a place of its own
            part[:] = np.bincount(drawn.ravel(), minlength=part.size).reshape(part.shape)
        yield counts
