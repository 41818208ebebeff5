"""A search whose runs, launchers and kills take turns after each single operation on its entries."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from modal_app.halving import halve
from modal_app.halving.entries import Entries, go_of
from modal_app.halving.snapshot import Reading
from tests.modal_app.halving_entries import MemoryEntries, Paused, Stepwise


class Fate(Enum):
    """What may end a run on its way to a rung."""

    DIVERGES = "diverges"
    FAILS = "fails"


Curve = Sequence[Reading | Fate]
"""What a run reaches at each rung."""


@dataclass(eq=False, slots=True)
class Worker:
    """Code that works on the entries. If it is killed, its operations so far remain."""

    code: Callable[[Entries], Any]
    then: Callable[[Any], None]
    stepwise: Stepwise
    run: str | None = None
    """The run that it trains; None: a launcher."""

    def step(self) -> bool:
        """Do one more operation. Returns whether that was the last one."""
        self.stepwise.begin()
        try:
            found = self.code(self.stepwise)
        except Paused:
            return False
        self.then(found)
        return True


@dataclass(slots=True)
class World:
    entries: MemoryEntries
    curves: Mapping[str, Curve]
    random: random.Random
    parallel: int
    workers: list[Worker] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)
    """The last rung that a run has a checkpoint of."""
    ended: dict[str, int | Fate | None] = field(default_factory=dict)
    """How the last job of a run has ended: at a rung, by its fate, or (None) at its end."""
    trained: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How often each run was trained to each rung."""
    kills: Counter[str] = field(default_factory=Counter)

    def play(self, *, kills: float, relaunches: float, most: int = 20_000) -> None:
        """Run until nothing is left to do. `kills`, `relaunches`: how likely each is, per operation."""
        self.launch()
        for _ in range(most):
            self.fill()
            if not self.workers:
                return
            if self.random.random() < kills:
                self.kill(self.random.choice(self.workers))
            elif self.random.random() < relaunches:
                self.launch()
            else:
                self.step(self.random.choice(self.workers))
        raise AssertionError("this never ends")

    def step(self, worker: Worker) -> None:
        if worker.step():
            self.workers.remove(worker)

    def kill(self, worker: Worker) -> None:
        self.workers.remove(worker)
        if worker.run is not None:
            self.kills[worker.run] += 1

    def launch(self) -> None:
        """The same command line: the launcher puts what earlier launchers may have left out, looks at the rungs, and
        starts what should run."""

        def code(entries: Entries) -> dict[str, int]:
            for run, how in ended.items():
                self._note(entries, run, how)
            return halve.look(entries)

        def then(found: dict[str, int]) -> None:
            for run in self.curves:
                if not isinstance(self.ended.get(run), int) or run in found:
                    self.start(run)

        ended = dict(self.ended)
        self._begin(code, then)

    def start(self, run: str) -> None:
        """Start it, unless a process works on it, it is done, or it has failed, as locks and outcomes would show."""
        over = run in self.ended and not isinstance(self.ended[run], int)
        if not over and run not in self.waiting and all(worker.run != run for worker in self.workers):
            self.waiting.append(run)

    def fill(self) -> None:
        self.random.shuffle(self.waiting)
        while self.waiting and sum(worker.run is not None for worker in self.workers) < self.parallel:
            self._go_on(self.waiting.pop())

    def _go_on(self, run: str) -> None:
        """Train to the next rung, and ask there. A run that was stopped or killed at a rung asks there again, unless it
        has the answer to go on."""
        rung = self.reached.get(run, 0)
        if rung == 0 or go_of(rung, run) in self.entries.found:
            rung += 1
            if rung > len(self.curves[run]):
                self._begin(lambda _: None, lambda _: self._end(run, None), run)
                return
        here = self.curves[run][rung - 1]
        self.ended.pop(run, None)
        if self.reached.get(run) != rung:
            self.trained[run, rung] += 1
        if isinstance(here, Fate):
            self._begin(lambda _: None, lambda _: self._end(run, here), run)
            return

        def then(answer: halve.Answer) -> None:
            self.reached[run] = rung
            if answer.goes_on:
                self._go_on(run)
            else:
                assert go_of(rung, run) not in self.entries.found
                self._end(run, rung)

        self._begin(lambda entries: halve.ask(entries, run, rung, here), then, run)

    def _end(self, run: str, how: int | Fate | None) -> None:
        """The end of a job: its launcher records it, looks at the rungs, and starts what goes on."""
        self.ended[run] = how

        def code(entries: Entries) -> dict[str, int]:
            self._note(entries, run, how)
            return halve.look(entries)

        def then(found: dict[str, int]) -> None:
            for one in found:
                at = self.ended.get(one)
                assert not isinstance(at, int) or go_of(at, one) in self.entries.found, "it stopped again meanwhile"
                self.start(one)

        self._begin(code, then)

    def _note(self, entries: Entries, run: str, how: int | Fate | None) -> None:
        match how:
            case int():
                halve.note_stop(entries, run, how)
            case Fate.FAILS:
                halve.note_out(entries, run)
            case Fate.DIVERGES:
                gone = Reading(None, 100, "rows")
                halve.note_divergence(entries, run, self.reached.get(run, 0) + 1, gone)

    def _begin(self, code: Callable[[Entries], Any], then: Callable[[Any], None], run: str | None = None) -> None:
        self.workers.append(Worker(code, then, Stepwise(self.entries), run))
