"""What a plan would take: its time and cost, for each run and in total."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from modal_app.store.rungs import Rungs
from runner.cost.prices import Rates
from runner.cost.types import NOTHING, Length, Prediction, Range
from runner.estimate.halved import EVERYTHING, Least, least_of


@dataclass(frozen=True, slots=True)
class RunCost:
    key: str
    length: Length | None = None
    prediction: Prediction | None = None
    """None if it is unknown; then `reason` says why."""
    reason: str = ""
    dollars: Range | None = None
    """None if they are unknown, or nothing is rented."""
    dollars_s: float | None = None
    """The highest cost of one second."""
    cards: tuple[str, ...] = ()
    """The cards that it may get, by their names in conf/gpu."""
    fewer_saves: Saving | None = None
    """What the run would cost with fewer checkpoints, if most of its time is spent on writing them."""
    healed: str = ""
    """The micro batch that all of this is of, if on_oom=halve has to come to it first: `micro_batch_size=2`."""

    @property
    def starting(self) -> float:
        """The part of its price that a start takes: the boot, loading the model, and the first step. From 0 to 1."""
        if self.prediction is None:
            return 0.0
        boot, phases = self.prediction.booting.likely, self.prediction.phases
        return (phases.start + boot) / max(phases.total + boot, 1e-9)


@dataclass(frozen=True, slots=True)
class Saving:
    """The same run with other checkpoints."""

    override: str
    """Replaces the run's own: `saves_per_epoch=1`."""
    rented_s: float
    dollars: float | None = None
    """None if nothing is rented."""


@dataclass(frozen=True, slots=True)
class PlanCost:
    runs: tuple[RunCost, ...]
    """Pending runs, in the plan's order."""
    preparing_s: Range
    preparing: Range | None
    """Dollars for preparing datasets and fetching models."""
    wall: Range | None
    """Seconds until everything has ended; None if those of a run are unknown."""
    at_a_time: int
    rates: Rates | None
    preparing_each: Mapping[str, Range] = field(default_factory=dict)
    """Seconds by data key."""
    rungs: Rungs | None = None
    """Where most of the runs stop, if they are halved. All figures but `least...` are of training each to its end."""
    at_rungs: int = 0
    """How many of the runs have stopped at one, so that they may do nothing more."""
    boots: int = 0
    """How many containers boot for the runs, where containers do several of them; 0 if each run has its own."""
    audited: int = 0
    """How many of the others never stop, to show what stopping misses."""

    @property
    def dollars(self) -> Range | None:
        """The total; None if any part is unknown, or nothing is rented."""
        known = [one.dollars for one in self.runs if one.dollars is not None]
        if self.preparing is None or len(known) < len(self.runs):
            return None
        return sum(known, self.preparing)

    @property
    def seconds(self) -> Range | None:
        """The sum over all runs; None if those of a run are unknown."""
        known = [one.prediction.seconds for one in self.runs if one.prediction is not None]
        return sum(known, NOTHING) if len(known) == len(self.runs) else None

    @property
    def least(self) -> Least:
        """What the runs do if as few as possible go on from each rung; everything without rungs."""
        if self.rungs is None or not self.runs:
            return EVERYTHING
        return least_of(self.rungs, len(self.runs) - self.at_rungs, self.audited, self.at_rungs)

    @property
    def least_dollars(self) -> Range | None:
        """With as few runs as possible; None like `dollars`. Each start pays for its boot, too."""
        if self.dollars is None or self.preparing is None:
            return None
        return sum((self.least.of(one.dollars, one.starting) for one in self.runs if one.dollars), self.preparing)

    @property
    def least_seconds(self) -> Range | None:
        """The sum over all runs with as few as possible; None like `seconds`."""
        if self.seconds is None:
            return None
        known = [one.prediction for one in self.runs if one.prediction is not None]
        starting = [one.phases.start / max(one.phases.total, 1e-9) for one in known]
        parts = zip(known, starting, strict=True)
        return sum((self.least.of(one.seconds, start) for one, start in parts), NOTHING)


THIS_MACHINE = "this machine"


@dataclass(frozen=True, slots=True)
class Pool:
    """The resources that runs share: the slots of this machine, or the containers of one kind on Modal."""

    name: str
    most: int | None
    """The most runs at a time; None without a limit."""
    reused: bool = False
    """Whether a container does several of its runs, one after the other."""

    def containers(self, runs: int) -> int:
        """How many containers boot for so many runs."""
        return min(runs, self.most or runs) if self.reused else runs
