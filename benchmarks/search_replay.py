"""Simulates searches with recorded losses, in any order of arrival, for benchmarks/search.py."""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from benchmarks.search_curves import AT, BY_ROW, STEPS, Curves, Floats
from modal_app.halving import halve
from modal_app.halving.entries import TERMS
from modal_app.halving.margin import GROUPS
from modal_app.halving.snapshot import Reading, Terms
from tests.modal_app.halving_entries import MemoryEntries

RUNGS = BY_ROW[:-1]
FRACTIONS = tuple(step / STEPS for step in RUNGS)
ETA = 3
WORSE_BY = 1.5
"""A held-out loss above this many times the first one has diverged."""
MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Grid:
    """The recorded runs that a search may draw."""

    curves: Curves
    members: tuple[int, ...]
    """Places in the curves."""
    readings: tuple[tuple[Reading, ...], ...]
    """Of each member, at each rung."""
    ends_at: tuple[int, ...]
    """The step at which each member stops by itself: its last one, or where it has diverged."""
    final: Floats
    """The eval loss of each member at its end; infinite if it has diverged."""

    @classmethod
    def of(cls, curves: Curves, members: Sequence[int]) -> Grid:
        group = ((curves.document * MIX) >> np.uint64(40)).astype(np.int64) % GROUPS
        ends = tuple(_ends_at(curves, one) for one in members)
        return cls(
            curves=curves,
            members=tuple(members),
            readings=tuple(tuple(_readings(curves, one, group)) for one in members),
            ends_at=ends,
            final=np.array(
                [curves.loss[one, -1] if at == STEPS else math.inf for one, at in zip(members, ends, strict=True)]
            ),
        )

    @property
    def size(self) -> int:
        return len(self.members)

    @property
    def steps(self) -> int:
        """The steps of a search without rungs."""
        return self.size * STEPS

    def part(self, members: Sequence[int]) -> Grid:
        """`members`: places in this grid."""
        return replace(
            self,
            members=tuple(self.members[one] for one in members),
            readings=tuple(self.readings[one] for one in members),
            ends_at=tuple(self.ends_at[one] for one in members),
            final=self.final[list(members)],
        )


def _ends_at(curves: Curves, run: int) -> int:
    """A run that diverges before a rung stops at that evaluation; after the last rung, it goes on to its end."""
    worse = [step for step, loss in zip(AT, curves.loss[run], strict=True) if loss > WORSE_BY * curves.first[run]]
    return next((step for step in worse if step <= RUNGS[-1]), STEPS)


def _readings(curves: Curves, run: int, group: np.ndarray) -> list[Reading]:
    found = []
    tokens = np.bincount(group, weights=curves.tokens, minlength=GROUPS)
    setting = f"{curves.rate[run]} {curves.rank[run]}"
    for place, step in enumerate(RUNGS):
        nll = np.bincount(group, weights=curves.nll[run, place], minlength=GROUPS)
        loss = float(curves.loss[run, AT.index(step)])
        found.append(
            Reading(loss, STEPS, "rows", tuple(map(int, tokens)), tuple(map(float, nll)), setting)
            if step < _ends_at(curves, run) or _ends_at(curves, run) == STEPS
            else Reading(None, STEPS, "rows")
        )
    return found


@dataclass(frozen=True, slots=True)
class Order:
    """The order in which the runs of a grid come."""

    queue: tuple[int, ...]
    pace: tuple[float, ...]
    """Seconds a step, of each."""
    keys: tuple[str, ...]
    """Of each: who is audited is drawn by them."""
    parallel: int

    @classmethod
    def drawn(cls, size: int, number: int, parallel: int | None = None) -> Order:
        choice = random.Random(number)
        queue = choice.sample(range(size), size)
        pace = tuple(choice.uniform(0.8, 1.25) for _ in queue)
        keys = tuple(f"{choice.getrandbits(48):012x}" for _ in queue)
        return cls(tuple(queue), pace, keys, parallel or choice.randint(1, 24))


class Rule(Protocol):
    """Decides which runs go on. A run is an index into the grid; rungs count from 1."""

    def goes_on(self, run: int, rung: int) -> bool:
        """A run has come to a rung."""
        ...

    def ended(self, run: int, rung: int | None) -> None:
        """A run's job has ended: it has stopped at a rung, or (None) reached its end."""
        ...

    def promoted(self) -> int | None:
        """A stopped run that goes on now, when there is room for one."""
        ...


@dataclass(slots=True)
class Replay:
    steps: int
    finished: list[int]
    seconds: float
    """With `parallel` at a time."""

    def winner(self, grid: Grid) -> int | None:
        """The finished run that is ranked first."""
        best = min(self.finished, key=lambda run: grid.final[run], default=None)
        return None if best is None or math.isinf(grid.final[best]) else best


def play(grid: Grid, order: Order, rule: Rule) -> Replay:
    """Runs that go on from a rung start before new ones, as in the executors."""
    waiting, at, stops = deque(order.queue), dict.fromkeys(range(grid.size), 0), (*RUNGS, STEPS)
    played, now, events = Replay(0, [], 0.0), 0.0, list[tuple[float, int]]()

    def train(run: int) -> None:
        steps = min(stops[at[run]], grid.ends_at[run]) - (stops[at[run] - 1] if at[run] else 0)
        played.steps += steps
        heapq.heappush(events, (now + steps * order.pace[run], run))

    while True:
        while len(events) < order.parallel:
            run = rule.promoted()
            if run is None:
                if not waiting:
                    break
                run = waiting.popleft()
            train(run)
        if not events:
            played.seconds = now
            return played
        now, run = heapq.heappop(events)
        at[run] += 1
        if at[run] == len(stops):
            played.finished.append(run)
            rule.ended(run, None)
        elif rule.goes_on(run, at[run]):
            train(run)
        else:
            rule.ended(run, at[run])


@dataclass(slots=True)
class OurRule:
    """The very functions that runs and launchers call, over entries in memory."""

    grid: Grid
    order: Order
    entries: MemoryEntries
    queue: deque[int] = field(default_factory=deque)
    started: set[tuple[int, int]] = field(default_factory=set)

    @classmethod
    def of(
        cls,
        grid: Grid,
        order: Order,
        *,
        audit: bool = True,
        margin: bool = True,
        keep_rate: bool = True,
        eta: int = ETA,
    ) -> OurRule:
        rates = {key: float(grid.curves.rate[one]) for key, one in zip(order.keys, grid.members, strict=True)}
        entries = MemoryEntries()
        entries.put(TERMS, Terms(rates, FRACTIONS, eta, audit, margin, keep_rate).to_json())
        return cls(grid, order, entries)

    def goes_on(self, run: int, rung: int) -> bool:
        return halve.ask(self.entries, self.order.keys[run], rung, self.grid.readings[run][rung - 1]).goes_on

    def ended(self, run: int, rung: int | None) -> None:
        if rung is not None:
            halve.note_stop(self.entries, self.order.keys[run], rung)
        for key, at in halve.look(self.entries).items():
            one = self.order.keys.index(key)
            if (one, at) not in self.started:
                self.started.add((one, at))
                self.queue.append(one)

    def promoted(self) -> int | None:
        return self.queue.popleft() if self.queue else None


@dataclass(slots=True)
class PublishedAsha:
    """Algorithm 2 of arXiv 1810.05934: a free worker takes a run among the best floor(n / eta) of a rung that has not
    gone on, from the highest rung down; otherwise, a new one."""

    grid: Grid
    come: list[dict[int, float]] = field(default_factory=lambda: [{} for _ in RUNGS])
    gone: list[set[int]] = field(default_factory=lambda: [set() for _ in RUNGS])

    def goes_on(self, run: int, rung: int) -> bool:
        loss = self.grid.readings[run][rung - 1].loss
        self.come[rung - 1][run] = math.inf if loss is None else loss
        return False

    def ended(self, run: int, rung: int | None) -> None:
        pass

    def promoted(self) -> int | None:
        for come, gone in reversed(list(zip(self.come, self.gone, strict=True))):
            best = sorted(come, key=lambda run: (come[run], run))[: len(come) // ETA]
            for run in best:
                if run not in gone and math.isfinite(come[run]):
                    gone.add(run)
                    return run
        return None


MakeRule = Callable[[Grid, Order], Rule]
