"""How far a sweep is, and how long it will still take: the plan's estimate, corrected by what has run."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from modal_app.store.layout import Store
from modal_app.store.read_json import read_as
from modal_app.store.step import write_atomically
from runner.console.durations import about, clock
from runner.cost.spent import SweepCost, money
from runner.store.run_state import RunStatus

FAILED = (RunStatus.FAILED, RunStatus.LOST, RunStatus.BLOCKED, RunStatus.STOPPED)
ESTIMATE = "estimate.json"
"""In a sweep's folder: what the plan expected of the last launch."""
LEARNED_AT = 0.25
"""The part of its steps after which a run's own speed counts, not the plan's estimate."""
LEAST_PART = 0.05
"""A run that has done less says nothing about the others."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How far a run is, and since when. All times are Unix seconds."""

    key: str
    status: RunStatus
    part: float = 0.0
    """Of its steps, from 0 to 1."""
    started_at: float | None = None
    ended_at: float | None = None
    logged_at: float | None = None
    """When it had done this part."""
    startup_s: float = 0.0
    """Seconds before its first step."""
    resumed_part: float = 0.0
    """What an earlier attempt had done."""
    before: bool = False
    """Whether it had ended before this launch, so that it says nothing about the machine's present speed."""
    rung: int = 0
    """The rung at which it has stopped; 0 otherwise."""

    @property
    def whole_s(self) -> float | None:
        """The seconds that it has taken, or will take at its present speed. None if unknown."""
        if self.started_at is None or self.before:
            return None
        if self.status is RunStatus.SUCCEEDED:
            return None if self.ended_at is None else max(self.ended_at - self.started_at, 0.0)
        done = self.part - self.resumed_part
        if self.status is not RunStatus.RUNNING or self.logged_at is None or done < LEAST_PART:
            return None
        stepping = self.logged_at - self.started_at - self.startup_s
        return self.startup_s + stepping / done * (1 - self.resumed_part) if stepping > 0 else None


@dataclass(frozen=True, slots=True)
class ExpectedSeconds:
    """The plan's estimate, in its likely seconds."""

    runs: Mapping[str, float] = field(default_factory=dict)
    """By key, also of datasets; those whose time is unknown are absent."""
    boot_s: float = 0.0
    """Until a new container works on a run."""
    at_a_time: int = 1
    share: float = 1.0
    """Of its steps that a waiting run is expected to do: with rungs, most stop before their end."""
    next_s: float | None = None
    """Until a container that has ended a run works on the next one; None if a new container does."""

    def save(self, store: Store, sweep: str) -> None:
        write_atomically(store.sweeps / sweep / ESTIMATE, json.dumps(asdict(self)))

    @classmethod
    def read(cls, store: Store, sweep: str) -> ExpectedSeconds | None:
        """None if there is none, as for a sweep that another machine launched."""
        return read_as(store.sweeps / sweep / ESTIMATE, lambda raw: cls(**raw))


@dataclass(frozen=True, slots=True)
class Headway:
    """How far a sweep is."""

    of: int
    counts: Mapping[RunStatus, int]
    part: float
    """Of all steps of all runs, from 0 to 1."""
    elapsed_s: float
    left_s: float | None = None
    """None if unknown."""
    cost: SweepCost | None = None
    """None if nothing is rented."""
    noun: str = ""
    """What is counted, if it is not runs."""
    stopped: Mapping[int, int] = field(default_factory=dict)
    """How many have stopped at each rung."""

    @property
    def done(self) -> int:
        return self.counts.get(RunStatus.SUCCEEDED, 0)

    @property
    def is_over(self) -> bool:
        return not any(self.counts.get(one) for one in (RunStatus.RUNNING, RunStatus.PENDING))

    @property
    def counted(self) -> str:
        """`11 of 24 done, 6 stopped at rung 1, 1 failed, 3 running`"""
        words = (*FAILED, RunStatus.REMOVED, RunStatus.RUNNING)
        rest = [f"{self.counts[status]} {status}" for status in words if self.counts.get(status)]
        rungs = sorted(self.stopped)
        at_rungs = [f"{self.stopped[one]} {'stopped ' * (one == rungs[0])}at rung {one}" for one in rungs]
        return ", ".join([f"{self.done} of {self.of}{f' {self.noun}' if self.noun else ''} done", *at_rungs, *rest])

    @property
    def timed(self) -> str:
        """`3:12 elapsed, about 6 min left, $1.20 so far`; what is unknown is not mentioned."""
        left = "" if self.left_s is None or self.is_over else f"{about(self.left_s)} left"
        least = "at least " if self.cost and self.cost.bill.unpriced else ""
        dollars = f"{least}{money(self.cost.bill.dollars)} so far" if self.cost else ""
        return ", ".join(filter(None, (f"{clock(self.elapsed_s)} elapsed", left, dollars)))


def part_of(runs: Sequence[Timing]) -> float:
    """The share of all steps that is done. A run that has failed has none left, nor has one that stopped at a rung; one
    that was stopped resumes."""
    ended = {RunStatus.SUCCEEDED, RunStatus.AT_RUNG, *FAILED, RunStatus.REMOVED} - {RunStatus.STOPPED}
    return sum(1.0 if one.status in ended else one.part for one in runs) / len(runs) if runs else 0.0


def seconds_left(runs: Sequence[Timing], expected: ExpectedSeconds | None, now: float) -> float | None:
    """Until all of one kind have ended; None if unknown."""
    running = [one for one in runs if one.status is RunStatus.RUNNING]
    waiting = [one for one in runs if one.status is RunStatus.PENDING]
    plan = expected or ExpectedSeconds(at_a_time=max(len(running), 1))
    speed = _correction(runs, plan)
    now_left = [_left(one, plan, speed, now) for one in running]
    later = [_total(one, plan, speed, runs) for one in waiting]
    known = [one for one in (*now_left, *later) if one is not None]
    if len(known) < len(running) + len(waiting):
        return None
    if not known:
        return 0.0
    between = plan.boot_s if plan.next_s is None else plan.next_s
    slots = max(plan.at_a_time, len(running), 1)
    free = [plan.boot_s - between] * (min(slots, len(running) + len(waiting)) - len(running))
    ends = known[: len(running)] + free
    heapq.heapify(ends)
    for one in known[len(running) :]:
        heapq.heapreplace(ends, ends[0] + between + one)
    return max(ends)


def run_left(one: Timing, runs: Sequence[Timing], expected: ExpectedSeconds | None, now: float) -> float | None:
    """Seconds that a running run will still take; None if unknown, also if it already takes longer than the plan
    said."""
    plan = expected or ExpectedSeconds()
    left = _left(one, plan, _correction(runs, plan), now) if one.status is RunStatus.RUNNING else None
    return left if left or one.whole_s is not None else None


def _correction(runs: Sequence[Timing], plan: ExpectedSeconds) -> float:
    """How much longer runs take than the plan said."""
    known = [(whole, plan.runs[one.key]) for one in runs if (whole := one.whole_s) and plan.runs.get(one.key)]
    return sum(whole for whole, _ in known) / sum(said for _, said in known) if known else 1.0


def _left(one: Timing, plan: ExpectedSeconds, speed: float, now: float) -> float | None:
    """Seconds left, by the plan at first, and by the run's own steps once there are some."""
    if one.started_at is None:
        return plan.runs.get(one.key)
    spent, whole = now - one.started_at, one.whole_s
    said = plan.runs[one.key] * speed if one.key in plan.runs else None
    if whole is None or said is None:
        total = said if whole is None else whole
        return None if total is None else max(total - spent, 0.0)
    trust = min(one.part / LEARNED_AT, 1.0)
    return max(trust * whole + (1 - trust) * said - spent, 0.0)


def _total(one: Timing, plan: ExpectedSeconds, speed: float, runs: Sequence[Timing]) -> float | None:
    """Seconds of a waiting run: by the plan, otherwise as long as the others take."""
    if one.key in plan.runs:
        return plan.share * plan.runs[one.key] * speed
    known = [plan.share * whole for other in runs if (whole := other.whole_s)]
    return sum(known) / len(known) if known else None


def headway_of(
    timings: Sequence[Timing], datasets: Sequence[Timing], expected: ExpectedSeconds | None, *, since: float,
    now: float, cost: SweepCost | None = None, noun: str = "",
) -> Headway:  # fmt: skip
    """`since`: when the launch began."""
    first, then = seconds_left(datasets, expected, now), seconds_left(timings, expected, now)
    return Headway(
        of=len(timings),
        counts=Counter(one.status for one in timings),
        part=part_of(timings),
        elapsed_s=now - since,
        left_s=None if first is None or then is None else first + then,
        cost=cost,
        noun=noun,
        stopped=Counter(one.rung for one in timings if one.status is RunStatus.AT_RUNG),
    )
