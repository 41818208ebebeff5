"""What is done with the entries of a search: a run asks at its rung, and each process that sees a job end looks
again."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from modal_app.halving.choose import to_be_started, waits, who_goes_on
from modal_app.halving.entries import TERMS, Entries, go_of, loss_of, out_of, stop_of
from modal_app.halving.snapshot import Reading, Snapshot, Why


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a run at its rung."""

    why: Why | None
    """Why it goes on; None if it stops."""
    place: int
    """Its place among the runs that are at the rung now, from 1."""
    of: int

    @property
    def goes_on(self) -> bool:
        return self.why is not None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Answer:
        return cls(None if raw["why"] is None else Why(raw["why"]), int(raw["place"]), int(raw["of"]))


def ask(entries: Entries, run: str, rung: int, reading: Reading) -> Answer:
    """Put what a run has reached, and answer whether it goes on. A run that already has the answer to go on gets it
    again. A run whose loss is not finite has diverged. While the terms cannot be read, every run goes on, until a
    launch puts them again."""
    if reading.loss is not None and not math.isfinite(reading.loss):
        reading = replace(reading, loss=None)
    entries.put(loss_of(rung, run), reading.to_json())
    items = entries.items()
    if TERMS not in items:
        entries.put(go_of(rung, run), {"why": Why.UNANSWERED})  # or others would wait for it to stop
        return Answer(Why.UNANSWERED, 1, 1)
    snapshot = Snapshot.of(items)
    why = snapshot.gone.get(rung, {}).get(run) or who_goes_on(snapshot, rung).get(run)
    if why is not None:
        entries.put(go_of(rung, run), {"why": why})
    return _answer(snapshot, run, rung, why)


def known_answer(entries: Entries, run: str, rung: int) -> Answer | None:
    """The answer to a run that goes on from the rung where it is: its loss there is known. None for any other run."""
    items = entries.items()
    if TERMS not in items:
        return None
    snapshot = Snapshot.of(items)
    why = snapshot.gone.get(rung, {}).get(run)
    return _answer(snapshot, run, rung, why) if why and run in snapshot.at(rung) else None


def _answer(snapshot: Snapshot, run: str, rung: int, why: Why | None) -> Answer:
    there = snapshot.at(rung)
    better = sum(one.ranked_loss < there[run].ranked_loss for one in there.values())
    return Answer(why, better + 1, len(there))


def note_stop(entries: Entries, run: str, rung: int) -> None:
    """Record a stop, when the run's checkpoint is saved and its job has ended."""
    entries.put(stop_of(rung, run), {"at": round(time.time(), 3)})  # an empty entry is one that cannot be read


def note_out(entries: Entries, run: str) -> None:
    """Record that a run has failed."""
    items = entries.items()
    after = Snapshot.of(items).last_rung(run) if TERMS in items else 0
    entries.put(out_of(after, run), {"at": round(time.time(), 3)})


def note_divergence(entries: Entries, run: str, rung: int, reading: Reading) -> None:
    """Record that a run has diverged before it came to this rung. `reading`: without a loss."""
    entries.put(loss_of(rung, run), reading.to_json())


def look(entries: Entries) -> dict[str, int]:
    """Put the entry for each stopped run that now goes on. Returns all runs that have such an entry for the rung where
    they stopped last, with that rung, except those that have come further, or failed, since. The caller starts those
    that no process works on and that have not ended."""
    items = entries.items()
    if TERMS not in items:
        return {}
    snapshot = Snapshot.of(items)
    for run, (rung, why) in to_be_started(snapshot).items():
        entries.put(go_of(rung, run), {"why": why})
    snapshot = Snapshot.of(entries.items())
    last = {run: rung for rung in sorted(snapshot.stopped) for run in snapshot.stopped[rung]}
    return {run: rung for run, rung in sorted(last.items()) if waits(snapshot, run, rung)}
