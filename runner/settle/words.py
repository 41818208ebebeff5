"""What `settle` prints: what it will do, each look, and how it ended, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.console.numbers import counted, difference
from runner.cost.spent import money
from runner.estimate.words import span, spread
from runner.launch.types import Launch
from runner.settle.launcher import Preview
from runner.settle.log import SeedRun, Settling
from runner.settle.policy import Terms, room
from runner.settle.rounds import Ending, Result, keys_of, spent
from runner.settle.sweep import Sweep
from runner.store.stores import is_mirror
from runner.verdict.power import needed


@dataclass(frozen=True, slots=True)
class Contender:
    """A setting that is not shown to be worse than another one. Numbers are in nats per token."""

    params: Mapping[str, Any]
    """What differs between the settings."""
    runs: tuple[str, ...]
    """The keys of its runs, one a seed."""
    loss: float
    """The mean over its seeds."""
    difference: float
    """Its loss minus that of the best."""
    low: float
    high: float
    """The difference's interval at the level of one look."""
    cost: float | None
    """Of one run on average: dollars, or seconds of training if one contender has no price. Null if unknown."""


@dataclass(frozen=True, slots=True)
class SettleOutput:
    """What `axosweep settle --json` prints."""

    sweep: str
    store: str
    ending: Ending | None
    """Why no further seeds are run; null with --plan."""
    settled: bool
    """Whether one setting is the best, or the best ones differ too little to matter."""
    contenders: tuple[Contender, ...]
    """Best first."""
    cheapest: str
    """A run of the contender that costs least."""
    looks: int
    """How many there were."""
    max_looks: int
    level: float
    """Of the intervals of one look."""
    worth: float
    """The difference that is worth having, as a share of the best loss."""
    max_seeds: int
    """The most seeds of one setting."""
    added: tuple[str, ...]
    """The runs that it has added to the sweep, by key."""
    dollars: float | None
    """What these have cost; null if nothing is rented."""
    next: tuple[SeedRun, ...]
    """The runs before the next look; empty if there will be none."""
    failures: tuple[str, ...]
    """What failed, a sentence a run."""


def settled(now: Sweep, settling: Settling, ending: Ending | None, *, further: Sequence[SeedRun] = (),
            failures: Sequence[str] = ()) -> SettleOutput:  # fmt: skip
    terms, added = settling.terms, keys_of(now, [one for each in settling.rounds for one in each.runs])
    return SettleOutput(
        sweep=now.id,
        store=str(now.store.root),
        ending=ending,
        settled=ending in (Ending.SEPARATED, Ending.EQUAL),
        contenders=tuple(_contender(now, one) for one in now.estimate.group),
        cheapest=now.runs_of(now.cheapest)[0],
        looks=len(settling.looks),
        max_looks=terms.looks,
        level=terms.level,
        worth=terms.worth,
        max_seeds=terms.max_seeds,
        added=tuple(added),
        dollars=spent(now, settling) if is_mirror(now.store) else None,
        next=tuple(further),
        failures=tuple(failures),
    )


def _contender(now: Sweep, one: int) -> Contender:
    against, leader = now.estimate.intervals, now.estimate.leader
    return Contender(
        params=now.params(one),
        runs=now.runs_of(one),
        loss=float(against.means[one]),
        difference=float(against.difference[one, leader]),
        low=float(against.low[one, leader]),
        high=float(against.high[one, leader]),
        cost=now.cost_of(one),
    )


def opening_lines(now: Sweep, settling: Settling, next_: Preview) -> list[str]:
    """What it will do, and what that may cost."""
    estimate, terms = now.estimate, settling.terms
    margin = terms.worth * float(estimate.intervals.means[estimate.leader])
    names = "; ".join(now.name(one) for one in estimate.contenders)
    counts = f"{counted(len(estimate.judged.settings), 'setting')}, {counted(len(estimate.contenders), 'contender')}"
    unknown = "" if estimate.intervals.seeds else " It is unknown yet how much seeds differ; the first ones measure it."
    lines = [
        f"{now.id}: {counts}: {names}.{unknown}",
        f"looks   {len(settling.looks)} of at most {terms.looks}, each at {100 * terms.level:.4g} %, so that one or "
        "more are wrong in at most 5 % of all sweeps",
        f"ends    when one setting is better than all others, when the contenders are within {percent(terms.worth)} "
        f"({margin:.2g}) of the best, or when each has {terms.max_seeds} seeds",
    ]
    if next_.planned is None:
        return [*lines, f"next    nothing: {_why(next_.ending, terms)}"]
    return [
        *lines,
        f"next    {seeds_text(now, next_.runs)}{_price(next_.planned)}",
        f"total   {counted(room(estimate, terms), 'further run')} at most{_most(now, terms, next_.planned)}",
        *needed_line(now),
    ]


def look_line(now: Sweep, settling: Settling) -> str:
    """One line after a look."""
    estimate = now.estimate
    others = [one for one in estimate.group if one != estimate.leader]
    lead = f"look {len(settling.looks)} of {settling.terms.looks}: {now.name(estimate.leader)} is ahead"
    if not others:
        return f"{lead} of all others."
    return f"{lead}; not shown to be worse: {'; '.join(_against(now, one) for one in others)}."


def closing_lines(result: Result) -> list[str]:
    """How it ended, for people."""
    out = dict.fromkeys(result.sweep.diverged.values())
    return [*_ending(result), *([f"Settings with a diverged seed are left out: {'; '.join(out)}."] if out else [])]


def _ending(result: Result) -> list[str]:
    now, estimate = result.sweep, result.sweep.estimate
    leader, terms = now.name(estimate.leader), result.settling.terms
    added = len(keys_of(now, [one for each in result.settling.rounds for one in each.runs]))
    dollars = f", {money(spent(now, result.settling))}" if is_mirror(now.store) else ""
    used = f"{counted(added, 'further run')}{dollars}, {counted(len(result.settling.looks), 'look')}"
    cheapest = f"The cheapest of them is {now.name(now.cheapest)}."
    others = [_against(now, one) for one in estimate.group if one != estimate.leader]
    table = [f"  {one}" for one in others]
    match result.ending:
        case Ending.SEPARATED:
            return [f"Settled: {leader} is better than all others ({used}).", f"  {_runners_up(now)}"]
        case Ending.EQUAL:
            within = f"differ from {leader} by less than {percent(terms.worth)}"
            equal = f"Settled: {len(others) + 1} settings differ too little to matter ({used}). These {within}:"
            return [equal, *table, cheapest]
        case Ending.FAILED:
            failed = [f"  {one}" for one in result.failures]
            return ["Not settled: a run failed. The same command tries it again.", *failed]
        case Ending.LOOKS | Ending.SEEDS | Ending.BUDGET:
            way_out = (
                "To continue, run the same command with a higher budget=."
                if result.ending is Ending.BUDGET
                else "To start over with new looks, add --again; then --max-seeds and --worth may have other values."
            )
            lead = f"Not settled: {_why(result.ending, terms)} ({used}). Not shown to be worse than {leader}:"
            return [lead, *table, *needed_line(now), f"{cheapest} {way_out}"]


def _why(ending: Ending | None, terms: Terms) -> str:
    """It has ended, if no run failed."""
    match ending:
        case Ending.SEPARATED:
            return "one setting is better than all others"
        case Ending.EQUAL:
            return f"the contenders are within {percent(terms.worth)} of the best"
        case Ending.LOOKS:
            return "the only look is used up" if terms.looks == 1 else f"all {terms.looks} looks are used up"
        case Ending.SEEDS:
            return f"each contender has {terms.max_seeds} seeds"
        case Ending.BUDGET:
            return "the next run may cost more than what is left of the budget"
    return "a run failed"


def seeds_text(now: Sweep, further: Sequence[SeedRun]) -> str:
    """`4 further seeds: lora_r=8 (1, 2); lora_r=16 (1, 2)`"""
    seeds: dict[int, list[int]] = {}
    for one in further:
        setting = now.setting_of(one.like)
        if setting is not None:
            seeds.setdefault(setting, []).append(one.seed)
    each = "; ".join(f"{now.name(one)} ({', '.join(map(str, values))})" for one, values in seeds.items())
    return f"{counted(len(further), 'further seed')}: {each}"


def needed_line(now: Sweep) -> list[str]:
    """What would show that the leader is better than its nearest contender, if the difference is what was found."""
    estimate = now.estimate
    if len(estimate.group) < 2 or estimate.intervals.seeds is None:
        return []
    leader, other = estimate.group[:2]
    found = needed(estimate.judged, estimate.intervals, other, leader)
    ways = []
    if found.seeds is not None:
        further = sum(max(0, found.seeds - len(now.runs_of(one))) for one in (leader, other))
        runs = f"{counted(further, 'further run')}{_dollars(now, leader, other, further)}"
        ways.append(f"{found.seeds} seeds of both ({runs})")
    if found.rows is not None:
        ways.append(f"{found.rows} held-out rows")
    if not ways:
        return []
    how = f"{' or '.join(ways)} would show it in 80 % of all cases"
    return [f"If {now.name(other)} is really worse by {found.difference:.2g}, {how}."]


def _dollars(now: Sweep, leader: int, other: int, runs: int) -> str:
    costs = [cost for one in (leader, other) if (cost := now.cost_of(one)) is not None]
    return f", about {money(runs * sum(costs) / 2)}" if now.is_priced and len(costs) == 2 else ""


def percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _against(now: Sweep, one: int) -> str:
    against, leader = now.estimate.intervals, now.estimate.leader
    three = (float(each[one, leader]) for each in (against.difference, against.low, against.high))
    found, low, high = (difference(value, "+") for value in three)
    return f"{now.name(one)} {found} ({low} to {high})"


def _runners_up(now: Sweep) -> str:
    order = sorted(range(len(now.estimate.judged.settings)), key=lambda one: float(now.estimate.intervals.means[one]))
    return f"loss {now.estimate.intervals.means[order[0]]:.4f}; next: {_against(now, order[1])}"


def _price(planned: Launch) -> str:
    cost = planned.cost
    if cost is None:
        return ""
    parts = [spread(cost.dollars, money)] if cost.dollars else []
    parts += [spread(cost.wall, span)] if cost.wall else []
    return (
        f"; {', '.join(parts)}"
        if parts
        else "; how long they take is unknown until a similar run has been trained here"
    )


def _most(now: Sweep, terms: Terms, planned: Launch) -> str:
    """Dollars, or seconds of this machine, by the upper estimate of the dearest run."""
    runs, most = (planned.cost.runs if planned.cost else ()), room(now.estimate, terms)
    dollars = [one.dollars.high for one in runs if one.dollars]
    seconds = [one.prediction.seconds.high for one in runs if one.prediction]
    if dollars and len(dollars) == len(runs):
        return f", {money(most * max(dollars))}"
    if seconds and len(seconds) == len(runs):
        return f", {span(most * max(seconds))} one after another"
    return ""
