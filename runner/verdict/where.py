"""Where one run is better than another on the rows that both were judged by: what a comparison of two shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from modal_app.held_out.held_out import Segment


class By(StrEnum):
    """What the rows are divided by."""

    DATASET = "dataset"
    """Of the mix."""
    LENGTH = "length"
    """All tokens of a row, in about four bins with equally many rows."""
    TURN = "turn"
    """The first, second, ... stretch of trained tokens of a row: the answers of a conversation."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some of the held-out rows, or of their answers."""

    by: By
    name: str
    rows: int
    documents: int
    tokens: int
    """Trained ones."""
    losses: tuple[float, float]
    """The mean over these tokens with each run, in nats."""
    difference: float
    """The second's loss minus the first's: below 0, the second is better."""
    low: float | None
    high: float | None
    """The difference's interval; null with too few documents. The intervals of all parts hold at once with 95 %
    confidence: they are adjusted for how many there are."""


@dataclass(frozen=True, slots=True)
class MovedRow:
    """A row whose loss differs much between the two runs."""

    id: str
    """The row's id, as 16 hex digits."""
    dataset: str | None
    length: int
    """All tokens."""
    tokens: int
    """Trained ones."""
    losses: tuple[float, float]
    """The mean over its trained tokens with each run, in nats."""
    moved: float
    """The sum over these tokens of the second's loss minus the first's: what the row adds to the whole difference."""
    text: tuple[Segment, ...] = ()
    """Without secrets; the beginnings of long segments. Empty if it is not stored."""
    answers: tuple[str, str] | None = None
    """What the two runs answer, the first first; null unless `axosweep infer` has asked both the row's question."""


@dataclass(frozen=True, slots=True)
class Where:
    """Of two runs that were judged by the same held-out rows. It holds for these two trained models; it does not say
    what other seeds of their settings would give."""

    rows: int
    documents: int
    documents_known: bool
    """Otherwise, each row is taken as a document of its own, and the intervals may be too narrow."""
    tokens: int
    """Trained ones."""
    losses: tuple[float, float]
    """The mean over all trained tokens with each run, in nats."""
    difference: float
    """The second's loss minus the first's."""
    low: float | None
    high: float | None
    """The difference's interval with 95 % confidence, not adjusted: it is one interval."""
    parts: tuple[Part, ...]
    """By dataset, then by length, then by turn; a division into a single part is left out."""
    better: tuple[MovedRow, ...]
    """The twenty rows at which the second gains most on the first, largest first."""
    worse: tuple[MovedRow, ...]
    """The twenty at which it loses most."""

    @property
    def moved(self) -> Sequence[MovedRow]:
        return (*self.better, *self.worse)
