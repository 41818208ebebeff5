"""settle.jsonl in a sweep's folder: what was fixed before the first look, and each round and look.

Each line is written before what it says is acted on, so after a kill the same command goes on with the round that was
begun, and no look is counted twice.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from modal_app.store.lines import append_line, read_lines
from runner.errors import SweepError
from runner.settle.policy import Conclusion, Terms
from runner.store.ledger import Ledger

FILE = "settle.jsonl"


@dataclass(frozen=True, slots=True)
class SeedRun:
    """A further run of a setting."""

    like: str
    """The key of the run that it repeats with another seed."""
    seed: int


@dataclass(frozen=True, slots=True)
class Round:
    """The runs between two looks."""

    runs: tuple[SeedRun, ...]


@dataclass(frozen=True, slots=True)
class Look:
    verdict: Conclusion | None
    """None if nothing was settled."""
    group: tuple[tuple[str, ...], ...]
    """The runs of each contender, best first."""


@dataclass(frozen=True, slots=True)
class Settling:
    """One settling of a sweep. A later one has looks of its own, and again an error of 5 %."""

    terms: Terms
    seeds: tuple[int, ...]
    """The further seeds of every setting, in this order."""
    events: tuple[Round | Look, ...] = ()

    @property
    def rounds(self) -> list[Round]:
        return [one for one in self.events if isinstance(one, Round)]

    @property
    def looks(self) -> list[Look]:
        return [one for one in self.events if isinstance(one, Look)]

    @property
    def verdict(self) -> Conclusion | None:
        return self.looks[-1].verdict if self.looks else None

    @property
    def open_round(self) -> Round | None:
        """The round that was begun last, if no look came after it."""
        return last if self.events and isinstance(last := self.events[-1], Round) else None

    @property
    def awaits_look(self) -> bool:
        """Whether a look follows when the runs so far have ended: there was none yet, or a round was begun since."""
        return not self.events or self.open_round is not None

    @property
    def has_ended(self) -> bool:
        """Whether it can never go on, be it settled or not."""
        return self.verdict is not None or len(self.looks) == self.terms.looks

    def seeds_of(self, runs: Sequence[str]) -> list[int]:
        """The seeds that were given to a setting. `runs`: the keys of its runs."""
        return [one.seed for each in self.rounds for one in each.runs if one.like in runs]


class Log:
    """The settlings of one sweep."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.path: Path = ledger.folder / FILE

    def newest(self) -> Settling | None:
        """None if the sweep was never settled. Raises SweepError for a line with missing or wrong parts, or with a run
        that the sweep does not have."""
        try:
            found = _newest_in(read_lines(self.path))
            if found is not None:
                _check_runs(found, {run.key for run in self._ledger.plan().runs})
            return found
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise SweepError(
                f"A line of {self.path} cannot be read ({why}). It may be a look, and each look counts, so none is "
                "skipped. Restore the file, or delete it to start over with new looks."
            ) from error

    def begin(self, settling: Settling) -> None:
        self._append({"event": "begun", **asdict(settling.terms), "seeds": list(settling.seeds)})

    def add(self, settling: Settling, event: Round | Look) -> Settling:
        self._append({"event": "round" if isinstance(event, Round) else "look", **asdict(event)})
        return replace(settling, events=(*settling.events, event))

    def _append(self, value: Mapping[str, Any]) -> None:
        append_line(self.path, {**value, "at": time.time()})


def _newest_in(lines: Sequence[Mapping[str, Any]]) -> Settling | None:
    found: Settling | None = None
    for raw in lines:
        if raw["event"] == "begun":
            terms = Terms(int(raw["looks"]), float(raw["worth"]), int(raw["max_seeds"]))
            found = Settling(terms, tuple(map(int, raw["seeds"])))
        elif found is not None:
            found = replace(found, events=(*found.events, _event(raw)))
    return found


def _check_runs(settling: Settling, known: Collection[str]) -> None:
    unknown = [one.like for each in settling.rounds for one in each.runs if one.like not in known]
    if unknown:
        raise ValueError(f"the sweep has no run {unknown[0]}")


def _event(raw: Mapping[str, Any]) -> Round | Look:
    if raw["event"] == "round":
        return Round(tuple(SeedRun(str(one["like"]), int(one["seed"])) for one in raw["runs"]))
    return Look(raw["verdict"] and Conclusion(raw["verdict"]), tuple(map(tuple, raw["group"])))


def further_seeds(used: Sequence[int], number: int) -> tuple[int, ...]:
    """The smallest seeds that no run of the sweep has.

    >>> further_seeds([42, 2], 3)
    (1, 3, 4)
    """
    free = (one for one in range(1, number + len(used) + 1) if one not in used)
    return tuple(one for one, _ in zip(free, range(number), strict=False))
