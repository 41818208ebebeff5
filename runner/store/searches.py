"""The searches of a sweep that stop runs at rungs: what each run has reached, and how it went on. Only reads.

A sweep has several searches if its rungs were changed between two launches. The newest one describes its runs, since
losses at different steps cannot be compared.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from modal_app.halving.choose import who_goes_on
from modal_app.halving.entries import TERMS, FileEntries
from modal_app.halving.snapshot import Reading, Snapshot, Why
from modal_app.store.layout import Store
from modal_app.store.read_json import parsed_as
from modal_app.store.rungs import Rungs


@dataclass(frozen=True, slots=True)
class RungReached:
    """What a run has reached at one rung of a search."""

    rung: int
    """From 1."""
    step: int
    loss: float | None
    """The held-out loss there; null if the run has diverged."""
    place: int
    """Among the runs that have come to this rung so far, from 1."""
    of: int
    """How many runs have come to this rung so far."""
    why: Why | None = None
    """Why it goes on from there; null if it stops."""
    was_stopped: bool = False
    """Whether it has stopped there, and perhaps gone on later."""

    @property
    def is_open(self) -> bool:
        """Whether it is not decided yet if it goes on."""
        return self.why is None and not self.was_stopped

    @property
    def promoted(self) -> bool:
        """Whether it stopped there first, and went on later, when more runs had reached the rung."""
        return self.was_stopped and self.why is not None


@dataclass(frozen=True, slots=True)
class Search:
    """A search of a sweep, as far as it has come."""

    id: str
    """<sweep id>/<hash of its terms>."""
    fractions: tuple[float, ...]
    """Of a run's steps: where the rungs are."""
    eta: int
    """The best 1 in `eta` runs goes on from each rung."""
    audit: bool
    """Whether one run in ten never stops."""
    members: tuple[str, ...]
    """Run keys."""
    reached: Mapping[str, tuple[RungReached, ...]]
    """Of each run that has come to a rung, in the order of the rungs."""
    snapshot: Snapshot = field(repr=False, compare=False)

    def is_for_audit(self, run: str, reached: Sequence[RungReached]) -> bool:
        """Whether a run would have stopped at one of these rungs, but for the audit. One that came there early went on
        for the audit, and may be among the best now: without the audit, it would have been promoted."""
        rungs = (one.rung for one in reached if one.why is Why.AUDIT)
        return any(who_goes_on(self.snapshot, rung).get(run, Why.AUDIT) is Why.AUDIT for rung in rungs)


def searches_of(store: Store, sweep: str) -> list[Search]:
    """The newest first; empty for a sweep without rungs. Those whose files cannot be read are left out."""
    folders = [path.parent for path in (store.sweeps / sweep / "rungs").glob(f"*/{TERMS}.json")]
    found = (_search_in(path, f"{sweep}/{path.name}") for path in sorted(folders, key=_begun, reverse=True))
    return [search for search in found if search is not None]


def reached_by_run(searches: Sequence[Search]) -> dict[str, tuple[RungReached, ...]]:
    """What the runs that have come to a rung have reached, by key: at the rungs of the newest search whose rungs a run
    has reached, and of other searches what was reached at the same steps."""
    newest = next((one for one in searches if one.reached), None)
    if newest is None:
        return {}
    rung_at = {one.step: one.rung for reached in newest.reached.values() for one in reached}
    others = {
        (run, one.step): replace(one, rung=rung_at[one.step])
        for search in reversed(searches)
        if search is not newest
        for run, reached in search.reached.items()
        for one in reached
        if one.step in rung_at
    }
    found = {
        run: [_with_reason(one, others.get((run, one.step))) for one in own] for run, own in newest.reached.items()
    }
    for (run, _), one in others.items():
        if run not in newest.reached:
            found.setdefault(run, []).append(one)
    return {run: tuple(sorted(ones, key=lambda one: one.rung)) for run, ones in found.items()}


def _with_reason(one: RungReached, before: RungReached | None) -> RungReached:
    """With the reason why a run went on from there, if an earlier search recorded one."""
    if before is None or one.why is not Why.BEFORE or before.why is None:
        return one
    return replace(one, why=before.why, was_stopped=before.was_stopped)


def _begun(folder: Path) -> float:
    return (folder / f"{TERMS}.json").stat().st_mtime


def _search_in(folder: Path, name: str) -> Search | None:
    items = dict(FileEntries(folder).items())
    return parsed_as(folder, items, lambda raw: _search(name, Snapshot.of(raw))) if TERMS in items else None


def _search(name: str, snapshot: Snapshot) -> Search:
    terms = snapshot.terms
    rungs = Rungs("", terms.fractions, terms.eta)
    reached: dict[str, list[RungReached]] = {}
    for rung, there in sorted(snapshot.readings.items()):
        losses = sorted(_loss(one) for one in there.values())
        for run, own in there.items():
            one = RungReached(
                rung=rung,
                step=rungs.steps(own.max_steps)[rung - 1],
                loss=own.loss,
                place=bisect.bisect_left(losses, _loss(own)) + 1,
                of=len(there),
                why=snapshot.gone.get(rung, {}).get(run),
                was_stopped=run in snapshot.stopped.get(rung, ()),
            )
            reached.setdefault(run, []).append(one)
    return Search(
        id=name,
        fractions=terms.fractions,
        eta=terms.eta,
        audit=terms.audit,
        members=tuple(terms.rates),
        reached={run: tuple(ones) for run, ones in reached.items()},
        snapshot=snapshot,
    )


def _loss(reading: Reading) -> float:
    """Runs that have diverged come last."""
    return math.inf if reading.loss is None else reading.loss
