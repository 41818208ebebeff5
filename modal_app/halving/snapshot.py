"""The entries of a search, as values: what a run has reached, and a snapshot of the search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from modal_app.halving.entries import TERMS


class Why(StrEnum):
    """Why a run goes on from a rung."""

    TOP = "top"
    """It is among the best, one in eta."""
    MARGIN = "margin"
    """It is not shown to be worse than the last of those."""
    RATE = "rate"
    """It is the best one with the largest learning rate that has not diverged: large rates gain most at the end of a
    schedule that decays."""
    AUDIT = "audit"
    """One run in ten goes on in any case, to show what stopping has missed."""
    OTHER_ROWS = "other rows"
    """It has other held-out rows, or another number of steps, than most runs, so it does not compare."""
    ASKED = "asked"
    """`axosweep resume` requested it."""
    BEFORE = "before"
    """It had been trained further before its search came to it."""
    UNANSWERED = "unanswered"
    """No answer came. This is not recorded: the run asks again if it comes here again."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a run has reached at a rung."""

    loss: float | None
    """The held-out loss, as the Trainer has it; None if the run has diverged."""
    max_steps: int
    eval_fingerprint: str | None
    tokens: tuple[int, ...] = ()
    """The trained tokens of each of GROUPS groups of held-out documents; empty where rows have no losses. A document is
    in the same group in each run."""
    nll: tuple[float, ...] = ()
    """The summed negative log-likelihood of each group, in nats."""
    setting: str = ""
    """Equal for runs that differ in their seed alone."""

    @property
    def ranked_loss(self) -> float:
        """The loss by which runs are ordered: a run that has diverged is behind all others."""
        return math.inf if self.loss is None else self.loss

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Reading:
        return cls(**{**raw, "tokens": tuple(raw.get("tokens", ())), "nll": tuple(raw.get("nll", ()))})


@dataclass(frozen=True, slots=True)
class Terms:
    """What is fixed before the first run of a search starts."""

    rates: Mapping[str, float | None]
    """The members of the search by run key, with their learning rates."""
    fractions: tuple[float, ...]
    eta: int
    audit: bool = True
    margin: bool = True
    """Whether a run within the noise of the cut goes on."""
    keep_rate: bool = True
    """Whether the best run with the largest rate goes on from rung 1."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Terms:
        return cls(**{**raw, "fractions": tuple(raw["fractions"])})


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is known of a search at one moment. Rungs count from 1."""

    terms: Terms
    readings: Mapping[int, Mapping[str, Reading]] = field(default_factory=dict)
    gone: Mapping[int, Mapping[str, Why]] = field(default_factory=dict)
    stopped: Mapping[int, frozenset[str]] = field(default_factory=dict)
    out: Mapping[str, int] = field(default_factory=dict)
    """The runs that have failed, and the last rung after which each has; 0 for none."""
    goes: dict[int, Mapping[str, Why]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The runs that go on, for each rung that `choose` has computed. A later rung needs each one before it."""

    @classmethod
    def of(cls, items: Mapping[str, Mapping[str, Any]]) -> Snapshot:
        """`items`: those of Entries. Raises KeyError if there are no terms."""
        readings: dict[int, dict[str, Reading]] = {}
        gone: dict[int, dict[str, Why]] = {}
        stopped: dict[int, set[str]] = {}
        out: dict[str, int] = {}
        for name, value in items.items():
            match name.split("/"):
                case ["loss", rung, run]:
                    readings.setdefault(int(rung), {})[run] = Reading.of(value)
                case ["go", rung, run]:
                    gone.setdefault(int(rung), {})[run] = Why(value["why"])
                case ["stop", rung, run]:
                    stopped.setdefault(int(rung), set()).add(run)
                case ["out", after, run]:
                    out[run] = max(int(after), out.get(run, 0))
        frozen = {rung: frozenset(runs) for rung, runs in stopped.items()}
        return cls(Terms.of(items[TERMS]), readings, gone, frozen, out)

    def at(self, rung: int) -> Mapping[str, Reading]:
        return self.readings.get(rung, {})

    def last_rung(self, run: str) -> int:
        """0 for none."""
        return max((rung for rung, there in self.readings.items() if run in there), default=0)

    def has_gone(self, rung: int, run: str) -> bool:
        return run in self.gone.get(rung, {})
