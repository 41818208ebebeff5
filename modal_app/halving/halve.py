"""What is done with the entries of a search: a run asks at its rung, and whoever sees a job end looks again."""

from __future__ import annotations

from dataclasses import dataclass

from modal_app.halving.choose import to_be_started, who_goes_on
from modal_app.halving.entries import Entries, go_of, loss_of, out_of, stop_of
from modal_app.halving.standing import Reading, Standing, Why


@dataclass(frozen=True, slots=True)
class Answer:
    """To a run at its rung."""

    why: Why | None
    """Why it goes on; None if it stops."""
    place: int
    """Its place among the runs that are at the rung now, from 1."""
    of: int

    @property
    def goes_on(self) -> bool:
        return self.why is not None


def ask(entries: Entries, run: str, rung: int, reading: Reading) -> Answer:
    """Put what a run has reached, and say whether it goes on. Who has been told to go on is told so again."""
    entries.put(loss_of(rung, run), reading.to_json())
    standing = Standing.of(entries.items())
    why = standing.gone.get(rung, {}).get(run) or who_goes_on(standing, rung).get(run)
    if why is not None:
        entries.put(go_of(rung, run), {"why": why})
    there = standing.at(rung)
    better = sum(_loss(one) < _loss(there[run]) for one in there.values())
    return Answer(why, better + 1, len(there))


def note_stop(entries: Entries, run: str, rung: int) -> None:
    """When a run's checkpoint is saved and its job has ended."""
    entries.put(stop_of(rung, run), {"rung": rung})


def note_out(entries: Entries, run: str) -> None:
    """When a run has failed."""
    entries.put(out_of(run), {"failed": True})


def note_divergence(entries: Entries, run: str, rung: int, reading: Reading) -> None:
    """When a run has diverged before it came to this rung. `reading`: without a loss."""
    entries.put(loss_of(rung, run), reading.to_json())


def look(entries: Entries) -> dict[str, int]:
    """Say of each stopped run that is to go on that it does. Returns all stopped runs that somebody has said so of, and
    their rungs: whoever looks starts those that nobody works on."""
    standing = Standing.of(entries.items())
    for run, (rung, why) in to_be_started(standing).items():
        entries.put(go_of(rung, run), {"why": why})
    standing = Standing.of(entries.items())
    gone = [(rung, run) for rung, runs in standing.stopped.items() for run in runs if standing.has_gone(rung, run)]
    return {run: rung for rung, run in sorted(gone)}


def _loss(reading: Reading) -> float:
    return float("inf") if reading.loss is None else reading.loss
