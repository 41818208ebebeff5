"""Settles a sweep: further seeds, a look, further seeds, until something ends it.

All that is known is in the sweep's folder, so after a kill each step is found again: an open round is launched again,
which trains only what is not finished, and the same runs give the same look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from modal_app.store.flock import try_lock
from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.settle.log import FILE, Log, Look, Round, SeedRun, Settling
from runner.settle.policy import Conclusion, next_seeds, verdict
from runner.settle.sweep import Sweep, read_sweep
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus


class Ending(StrEnum):
    """Why no further seeds are run."""

    SEPARATED = "separated"
    """One setting is shown to be better than all others."""
    EQUAL = "equal"
    """The best settings do not differ by more than what would be worth having."""
    LOOKS = "looks"
    """All looks are used up."""
    SEEDS = "seeds"
    """Each contender has as many seeds as it may have."""
    BUDGET = "budget"
    """The next run may cost more than what is left of the budget."""
    FAILED = "failed"
    """A run failed, or its loss is not a number."""


SETTLED = {Conclusion.SEPARATED: Ending.SEPARATED, Conclusion.EQUAL: Ending.EQUAL}


@dataclass(frozen=True, slots=True)
class RoundResult:
    """What came of launching a round."""

    failures: Mapping[str, str] = field(default_factory=dict)
    """The runs that failed, and why."""
    within_budget: bool = True
    """False: nothing was launched, since it may cost more than what is left."""


Show = Callable[[Sweep, Settling], None]
"""Called after each look."""


@dataclass(frozen=True, slots=True)
class Result:
    """What is known of a sweep when settling it has ended."""

    ending: Ending
    sweep: Sweep
    settling: Settling
    failures: tuple[str, ...] = ()
    """What failed, a sentence a run."""


@contextmanager
def alone(store: Store, sweep: str) -> Iterator[None]:
    """Raises SweepError while another process settles the sweep."""
    with (Ledger(store, sweep).folder / FILE).open("ab") as file:
        if not try_lock(file.fileno()):
            raise SweepError(f"Another process is settling {sweep}. Wait until it has ended, or stop it with Ctrl-C.")
        yield


class Launcher(Protocol):
    """Launches rounds, within a budget."""

    def affordable(self, now: Sweep, settling: Settling, runs: Sequence[SeedRun]) -> list[SeedRun]:
        """As many of these, from the first, as what is left of the budget pays for."""
        ...

    def launch(self, now: Sweep, settling: Settling, opened: Round) -> RoundResult:
        """Run what is not finished of a round."""
        ...


def settle(store: Store, sweep: str, settling: Settling, launcher: Launcher, show: Show) -> Result:
    """Go on with a settling until it ends. Raises SweepError for what cannot be launched."""
    log, terms = Log(Ledger(store, sweep)), settling.terms
    while True:
        now = read_sweep(store, sweep, terms)
        if settling.verdict:
            return Result(SETTLED[settling.verdict], now, settling)
        if (opened := settling.open_round) and not is_finished(now, opened):
            launched = launcher.launch(now, settling, opened)
            now = read_sweep(store, sweep, terms)
            if not launched.within_budget:
                return Result(Ending.BUDGET, now, settling)
            if failed := tuple(f"{key}: {why}" for key, why in launched.failures.items() if key not in now.diverged):
                return Result(Ending.FAILED, now, settling, failed)
        if opened and (unusable := _unusable(now, opened)):
            why = tuple(f"{key}: a loss of its held-out rows is not a number" for key in unusable)
            return Result(Ending.FAILED, now, settling, why)
        if now.estimate.intervals.seeds and settling.awaits_look:
            group = tuple(now.runs_of(one) for one in now.estimate.group)
            settling = log.add(settling, Look(verdict(now.estimate, terms), group))
            show(now, settling)
            if settling.verdict:
                continue
        if len(settling.looks) == terms.looks:
            return Result(Ending.LOOKS, now, settling)
        if not (further := next_round(now, settling, len(settling.looks))):
            return Result(Ending.SEEDS, now, settling)
        if not (further := launcher.affordable(now, settling, further)):
            return Result(Ending.BUDGET, now, settling)
        settling = log.add(settling, Round(tuple(further)))


def _unusable(now: Sweep, opened: Round) -> list[str]:
    """The runs of a finished round that are not judged, but for those of a setting that has diverged: that is out."""
    return [key for key in keys_of(now, opened.runs) if now.setting_of(key) is None and key not in now.diverged]


def next_round(now: Sweep, settling: Settling, looks: int) -> list[SeedRun]:
    """The runs after so many looks, those that matter most first; empty if no contender may have more seeds."""
    order = {key: place for place, key in enumerate(now.facts)}
    given: dict[int, set[Any]] = {}
    found: list[SeedRun] = []
    for one in next_seeds(now.estimate, settling.terms, settling.terms.looks - looks):
        keys = now.runs_of(one)
        before = [now.facts[key].config.get("seed") for key in keys]
        used = given.setdefault(one, {*settling.seeds_of(keys), *before})
        seed = next((seed for seed in settling.seeds if seed not in used), None)
        if seed is not None:  # otherwise, runs of it were removed
            used.add(seed)
            found.append(SeedRun(min(keys, key=order.__getitem__), seed))
    return found


def keys_of(now: Sweep, runs: Sequence[SeedRun]) -> list[str]:
    """The keys of those that have been launched."""
    return [key for one in runs if (key := now.key_of(one.like, one.seed)) is not None]


def is_finished(now: Sweep, opened: Round) -> bool:
    """Whether nothing of it is left to run. A run that would only diverge again is not."""
    keys = keys_of(now, opened.runs)
    over = [key in now.diverged or now.facts[key].status is RunStatus.SUCCEEDED for key in keys]
    return len(over) == len(opened.runs) and all(over)


def spent(now: Sweep, settling: Settling) -> float:
    """Dollars of all its runs so far."""
    return now.dollars(keys_of(now, [one for each in settling.rounds for one in each.runs]))
