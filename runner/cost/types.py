"""The values of a cost estimate, and arithmetic with ranges. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Range:
    """A figure with its lowest and highest likely values."""

    low: float
    likely: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> Range:
        return cls(value, value, value)

    @classmethod
    def about(cls, value: float, off: float) -> Range:
        """`off`: the relative error in either direction.

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
    """The size of a run's data, as far as it is known."""

    rows: int
    """Rows for training."""
    eval_rows: int
    tokens_per_row: float | None
    longest_row: int | None
    source: str
    """The source of these figures, for people: `prepared rows`."""


@dataclass(frozen=True, slots=True)
class Length:
    """How much a run computes."""

    steps: int
    micro_steps: int
    """Micro steps per step, on each card: gradient accumulation."""
    micro_tokens: Range
    """Tokens of a micro step on one card, with padding; its part of them if cards share rows."""
    evals: int
    """Evaluations, with those of the untrained and the final model."""
    eval_batches: int
    """Batches of one evaluation, on each card."""
    eval_tokens: float
    """Tokens of one evaluation, on each card; twice as many where the losses of rows take one more pass."""
    saves: int
    """Checkpoints and the final model."""
    source: str
    """The source of these figures, for people: `set by max_steps; prepared rows`."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The properties that a run's speed depends on, without its length."""

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
    """The executor, since its CPUs differ from those of another."""


@dataclass(frozen=True, slots=True)
class PastRuns:
    """The record of a trained run."""

    shape: Shape
    length: Length
    seconds: float
    """The seconds of its worker: all phases, and time that is in none of them."""
    phases: Mapping[str, float]
    """Seconds of import, load, first (step), train, eval, save."""
    boot: float | None = None
    """Seconds of its container's boot; None on this machine, and for a run that was not the first of its container."""
    around: float | None = None
    """Further seconds of its container before and after its worker, such as for copying; None on this machine, and in
    older records, whose `boot` includes them."""
    cores: float | None = None
    memory_gib: float | None = None
    cpu: Mapping[str, float] = field(default_factory=dict)
    """Processor seconds of its first rank, by phase; empty in older records."""


@dataclass(frozen=True, slots=True)
class Phases:
    """What the likely seconds of a run are spent on."""

    start: float
    """Imports, loading the model, and the first step."""
    train: float
    eval: float
    save: float

    @property
    def total(self) -> float:
        return self.start + self.train + self.eval + self.save


@dataclass(frozen=True, slots=True)
class Prediction:
    """The time of a run, and the resources that it uses."""

    seconds: Range
    """Seconds of the worker, as `compare` shows them."""
    phases: Phases
    """Their sum is the likely number of `seconds`."""
    boot: Range
    """Seconds of a container's boot; zero on this machine."""
    cores: Range
    memory_gib: Range
    basis: str
    """What the prediction is based on, for people: `6 records`."""
    cpu_s: float | None = None
    """Processor seconds of its first rank, which do not depend on other work on the machine; None without records of
    the same shape."""
    boots: float = 1.0
    """How many boots it pays for. Below 1 where containers do several runs: then it is the mean over these runs."""
    around: Range = NOTHING
    """Seconds of its container before and after its worker, without a boot: waiting for the run, copying files."""
    save_s: float = 0.0
    """Likely seconds of one checkpoint."""

    @property
    def booting(self) -> Range:
        """Seconds of the boots that it pays for."""
        return self.boot.scaled(self.boots)

    @property
    def rented(self) -> Range:
        """Seconds that are paid for."""
        return self.booting + self.around + self.seconds
