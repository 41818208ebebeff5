"""What `settle` would launch next, and launching it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.launch.types import Launch
from runner.settle.log import Round, SeedRun, Settling
from runner.settle.policy import verdict
from runner.settle.rounds import SETTLED, Ending, RoundResult, is_finished, keys_of, next_round, spent
from runner.settle.seeds import compose, refuse_budget
from runner.settle.sweep import Sweep
from runner.store.run_state import RunStatus


@dataclass(frozen=True, slots=True)
class SweepLauncher:
    """Launches rounds as the sweep was launched."""

    budget: float | None = None
    """US dollars for all rounds; None is no limit."""
    confirmed: bool = False
    """Launch without asking."""

    def affordable(self, now: Sweep, settling: Settling, runs: Sequence[SeedRun]) -> list[SeedRun]:
        """The runs that the budget covers by the upper estimate; all if the price of one is unknown."""
        if self.budget is None:
            return list(runs)
        left = self.budget - spent(now, settling)
        prices = compose(now.store, now.id, runs).prices()
        found: list[SeedRun] = []
        for one in runs:
            left -= prices.get(one, 0.0)
            if left < 0:
                break
            found.append(one)
        return found

    def launch(self, now: Sweep, settling: Settling, opened: Round) -> RoundResult:
        seeds = compose(now.store, now.id, opened.runs)
        planned = seeds.planned()
        left = None
        if self.budget is not None:
            # A launch counts what its unfinished runs have cost before.
            begun = [key for key in keys_of(now, opened.runs) if now.facts[key].status is not RunStatus.SUCCEEDED]
            left = self.budget - spent(now, settling) + now.dollars(begun)
            if left <= 0 or refuse_budget(planned, left):
                return RoundResult(within_budget=False)
        results = seeds.launch(left, confirmed=self.confirmed)
        return RoundResult({one.key: one.message for one in results if not one.succeeded})


@dataclass(frozen=True, slots=True)
class Preview:
    """What `settle` would do next."""

    ending: Ending | None
    """Null if it goes on."""
    runs: tuple[SeedRun, ...] = ()
    """The runs before the next look."""
    planned: Launch | None = None
    """What they cost."""


def preview(now: Sweep, settling: Settling) -> Preview:
    """Starts and records nothing. Raises SweepError for what cannot be launched."""
    opened, looks, found = settling.open_round, len(settling.looks), settling.verdict
    if opened and not is_finished(now, opened):
        rest = tuple(one for one in opened.runs if not is_finished(now, Round((one,))))
        return Preview(None, rest, compose(now.store, now.id, rest).planned())
    if found is None and now.estimate.intervals.seeds and settling.awaits_look:
        found, looks = verdict(now.estimate, settling.terms), looks + 1
    if found is not None:
        return Preview(SETTLED[found])
    if looks == settling.terms.looks:
        return Preview(Ending.LOOKS)
    if not (further := next_round(now, settling, looks)):
        return Preview(Ending.SEEDS)
    return Preview(None, tuple(further), compose(now.store, now.id, further).planned())
