"""What a cost estimate is made of: frozen values, and arithmetic with ranges. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with how far off it may be."""

    low: float
    likely: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Range:
        return cls(value, value, value)

    @classmethod
    def about(cls, value: float, off: float) -> Range:
        """`off`: by which share of itself it may be off, either way.

        >>> Range.about(10.0, 0.5)
        Range(low=5.0, likely=10.0, high=15.0)
        """
        return cls(value * (1 - off), value, value * (1 + off))

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __mul__(self, other: Range) -> Range:
        return Range(self.low * other.low, self.likely * other.likely, self.high * other.high)

    def scaled(self, factor: float) -> Range:
        return Range(self.low * factor, self.likely * factor, self.high * factor)


NOTHING = Range.exactly(0.0)


@dataclass(frozen=True, slots=True)
class Rows:
    """How large a run's data is, as far as that is known."""

    rows: int
    """For training."""
    eval_rows: int
    tokens_per_row: float | None
    longest_row: int | None
    source: str
    """Where this is from, for people: `prepared rows`."""


@dataclass(frozen=True, slots=True)
class Length:
    """How much a run computes."""

    steps: int
    micro_steps: int
    """Of a step, on each card: gradient accumulation."""
    micro_tokens: Range
    """Of a micro step on one card, padding included."""
    evals: int
    """The one of the untrained model and the one of the final model included."""
    eval_batches: int
    """Of one evaluation, on each card."""
    eval_tokens: float
    """Of one evaluation, on each card."""
    saves: int
    """Checkpoints, and the final model."""
    source: str
    """What tells it, for people: `max_steps, prepared rows`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides how fast a run goes, besides its length."""

    base_model: str
    adapter: str
    """none, lora, dora, ..."""
    bits: int
    """Of the frozen weights: 4, 8 or 16."""
    gpu: str
    """`cpu`, or a card by its name in conf/gpu."""
    count: int
    micro_batch: int
    sequence_len: int
    packed: bool
    padded: bool
    checkpointing: bool
    sharding: str
    """none, fsdp, zero1, ..."""
    place: str
    """The executor: one machine's CPU is not another's."""


@dataclass(frozen=True, slots=True)
class PastRuns:
    """A run that has been trained, as its record tells it."""

    shape: Shape
    length: Length
    seconds: float
    """Of its worker, all phases together and what is in none."""
    phases: Mapping[str, float]
    """import, load, first (step), train, eval, save."""
    boot: float | None = None
    """What its container took beyond that; None on this machine."""
    cores: float | None = None
    memory_gib: float | None = None
    cpu: Mapping[str, float] = field(default_factory=dict)
    """Of the phases, the processor seconds of its first rank; empty in older records."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """How long a run takes, and what it uses meanwhile."""

    seconds: Range
    """As `compare` shows them: of the worker."""
    boot: Range
    """Of its container beyond that; nothing on this machine."""
    cores: Range
    memory_gib: Range
    basis: str
    """What it is from, for people: `6 records of this store`."""
    cpu_s: float | None = None
    """Processor seconds of its first rank, which other work on the machine does not lengthen; None where none of its
    shape are recorded."""

    @property
    def rented(self) -> Range:
        """Seconds that are paid for."""
        return self.boot + self.seconds
