"""Rows of a sweep with rungs -> what stopping runs has saved, and what the audit says that it has missed. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modal_app.halving.choose import audited_of
from modal_app.halving.snapshot import Why
from runner.compare.ranking import EVAL_LOSS, Metric, Row
from runner.compare.rung_reasons import was_resumed
from runner.console.durations import about
from runner.console.numbers import loss
from runner.cost.spent import money
from runner.store.run_state import RunStatus
from runner.store.searches import Search

UNKNOWN = "It is unknown what stopping has missed: {}."
NOT_ENDED = (RunStatus.RUNNING, RunStatus.PENDING, RunStatus.STOPPED)


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known from the runs that went on for the audit alone, and from no others."""

    chosen: int
    """How many runs of the search never stop. Some of them are among the best, and would not have stopped anyway."""
    waiting: int
    """How many of these have not ended."""
    runs: int
    """How many finished runs would have stopped."""
    best_run: str | None
    """The best of them; null if none has finished with a loss."""
    best: float | None
    """Its final eval loss."""
    winner: float | None
    """The lowest final eval loss of the other runs, without those that `resume` has finished; null if there is none."""
    regret: float | None
    """How much lower `best` is than `winner`: what stopping at rungs would have missed. 0 if it is not lower."""


@dataclass(frozen=True, slots=True)
class ResumedRuns:
    """What is known from the runs that had stopped, and that `axosweep resume` has trained to their end."""

    runs: int
    best_run: str
    best: float
    """Its final eval loss."""
    regret: float | None
    """How much lower it is than that of the best run that the search has finished: what stopping has missed. 0 if it is
    not lower; null if the search has finished none."""


@dataclass(frozen=True, slots=True)
class HalvedSearch:
    """A search with rungs, up to now. Savings are relative to training every run to its end."""

    id: str
    fractions: tuple[float, ...]
    """Of a run's steps: where its rungs are."""
    eta: int
    """The best 1 in `eta` runs goes on from each rung."""
    runs: int
    stopped: int
    """Runs that have stopped at a rung, and not gone on."""
    promoted: int
    """Runs that have stopped at a rung, and gone on later, when more runs had reached it."""
    waiting: int
    """Runs that have not ended. While there are any, stopped ones may go on, and less is saved in the end."""
    steps: int | None
    """Optimizer steps of every run to its end; null while no run has begun."""
    steps_saved: int
    """Optimizer steps that the stopped runs have not done."""
    seconds_saved: float | None
    """The seconds that these steps would have taken, at each run's own speed; null if unknown."""
    dollars_saved: float | None
    """The dollars that these steps would have cost; null if nothing was rented, or there is no price."""
    audit: Audit | None
    """Null without audit, and where runs are compared by another metric than the eval loss."""
    resumed: ResumedRuns | None = None
    """Null if no such run has finished, and where runs are compared by another metric than the eval loss."""


def halved(search: Search, rows: Sequence[Row], metric: Metric = EVAL_LOSS) -> HalvedSearch:
    """`rows`: of the sweep, by this metric."""
    has_losses = metric == EVAL_LOSS
    members = set(search.members)
    own = [row for row in rows if row.key in members]
    stopped = [row for row in own if row.status is RunStatus.AT_RUNG]
    lengths = [row.max_steps for row in own if row.max_steps]
    seconds = [_seconds_saved(row) for row in stopped]
    dollars = [_dollars_saved(row) for row in stopped]
    return HalvedSearch(
        id=search.id,
        fractions=search.fractions,
        eta=search.eta,
        runs=len(search.members),
        stopped=len(stopped),
        promoted=sum(any(one.promoted and one.why is not Why.ASKED for one in row.rungs) for row in own),
        waiting=sum(row.status in NOT_ENDED for row in own),
        steps=max(lengths) * len(search.members) if lengths else None,
        steps_saved=sum(map(_steps_saved, stopped)),
        seconds_saved=_sum(seconds),
        dollars_saved=_sum(dollars),
        audit=_audit(own, search) if search.audit and has_losses else None,
        resumed=_resumed(own, search) if has_losses else None,
    )


def halved_notes(rows: Sequence[Row], found: Sequence[HalvedSearch], metric: Metric) -> list[str]:
    """How to read a table of which some runs have stopped."""
    stopped = [row for row in rows if row.status is RunStatus.AT_RUNG]
    notes = [_stopped_note(len(stopped), len(rows))] if stopped else []
    split = {row.setting for row in stopped} & {row.setting for row in rows if row.status is RunStatus.SUCCEEDED}
    if split:
        notes.append(
            "Some settings have finished and stopped seeds. Their means are those of the seeds that were best at a "
            "rung, so they look better than they are."
        )
    for one in found:
        notes += [text for text in (saved_text(one), missed_text(one) if metric == EVAL_LOSS else "") if text]
    return notes


def saved_text(one: HalvedSearch) -> str:
    """A sentence; empty before anything is saved."""
    if not one.steps or not one.steps_saved:
        return ""
    if one.waiting:
        verb = "has" if one.waiting == 1 else "have"
        return f"It is not known yet what stopping at rungs saves: {one.waiting} of {one.runs} runs {verb} not ended."
    more = [about(one.seconds_saved)] if one.seconds_saved else []
    more += [money(one.dollars_saved)] if one.dollars_saved else []
    also = f", {' and '.join(more)}" if more else ""
    return (
        f"Stopping at rungs has saved {100 * one.steps_saved / one.steps:.0f} % of the {one.steps} steps of all "
        f"{one.runs} runs{also}."
    )


def missed_text(one: HalvedSearch) -> str:
    """What stopping has missed, as far as the audit and the resumed runs show."""
    found = audit_text(one.audit) if one.audit else UNKNOWN.format("search.audit=false leaves the audit out")
    if one.resumed is None or one.resumed.regret is None:
        return found
    is_known = one.resumed.regret > 0 and (one.audit is None or one.audit.regret is None)
    return resumed_text(one.resumed) if is_known else f"{found} {resumed_text(one.resumed)}"


def resumed_text(resumed: ResumedRuns) -> str:
    which = "A run that had stopped was" if resumed.runs == 1 else f"{resumed.runs} runs that had stopped were"
    ended = "ended" if resumed.runs == 1 else "the best of them ended"
    head = f"{which} resumed, and {ended} at {loss(resumed.best)}"
    than = "the best run that the search has finished"
    if resumed.regret:
        return f"{head}, {loss(resumed.regret)} better than {than}: stopping had missed that."
    return f"{head}, no better than {than}."


def audit_text(audit: Audit) -> str:
    """What the audit has found, with its meaning."""
    if not audit.chosen:
        return UNKNOWN.format("this search has no run that is never stopped (the audit)")
    if audit.best is None or audit.winner is None:
        never = "1 run is" if audit.chosen == 1 else f"{audit.chosen} runs are"
        if audit.waiting:
            return f"It is not known yet what stopping has missed: {never} never stopped (the audit)."
        return UNKNOWN.format(f"{never} never stopped (the audit), but none that would have stopped has finished")
    head = "One run in ten is never stopped, to see what stopping misses"
    which = "the only one that would have stopped" if audit.runs == 1 else f"the best of {audit.runs}"
    found = f"{head}: {which} ended at {loss(audit.best)}, the best other run at {loss(audit.winner)}"
    if audit.regret:
        return f"{found}. So without the audit, the search would have missed {loss(audit.regret)}."
    return f"{found}. So the audit does not show that stopping has missed anything."


def _stopped_note(number: int, of: int) -> str:
    return (
        f"{number} of {of} runs {'has' if number == 1 else 'have'} stopped at a rung of the search. The column "
        "`why` shows the current place of a stopped run among all runs that have reached its rung. A stopped run has "
        "no rank, since losses can be compared only at equal steps. To finish one, use `axosweep resume RUN`."
    )


def _audit(rows: Sequence[Row], search: Search) -> Audit:
    """Runs that would have stopped but for the audit, against all others."""
    audited = audited_of(search.members)
    chosen = [row for row in rows if row.key in audited]
    waiting = sum(row.status in NOT_ENDED for row in chosen)
    alone, winner = _finished(row for row in rows if search.is_for_audit(row.key, row.rungs)), _winner(rows, search)
    if not alone:
        return Audit(len(chosen), waiting, 0, None, None, winner, None)
    key, best = min(alone.items(), key=lambda one: one[1])
    return Audit(len(chosen), waiting, len(alone), key, best, winner, _regret(winner, best))


def _resumed(rows: Sequence[Row], search: Search) -> ResumedRuns | None:
    resumed_runs = _finished(filter(was_resumed, rows))
    if not resumed_runs:
        return None
    key, best = min(resumed_runs.items(), key=lambda one: one[1])
    return ResumedRuns(len(resumed_runs), key, best, _regret(_winner(rows, search), best))


def _finished(rows: Iterable[Row]) -> dict[str, float]:
    """The final losses of those that have finished, by key."""
    ended = [row for row in rows if row.status is RunStatus.SUCCEEDED and _is_a_loss(row.final)]
    return {row.key: row.final for row in ended if row.final is not None}


def _winner(rows: Sequence[Row], search: Search) -> float | None:
    """The lowest final loss of the runs that the search has finished by its own choice."""
    own = [row for row in rows if not (was_resumed(row) or search.is_for_audit(row.key, row.rungs))]
    return min(_finished(own).values(), default=None)


def _regret(winner: float | None, best: float) -> float | None:
    return None if winner is None else max(0.0, winner - best)


def _steps_saved(row: Row) -> int:
    return max(0, (row.max_steps or 0) - _steps_done(row))


def _steps_done(row: Row) -> int:
    """Its last log line may be from before the rung."""
    return max([row.step or 0, *(one.step for one in row.rungs[-1:])])


def _seconds_saved(row: Row) -> float | None:
    done = _steps_done(row)
    return _steps_saved(row) * row.train_seconds / done if row.train_seconds and done else None


def _dollars_saved(row: Row) -> float | None:
    seconds = _seconds_saved(row)
    return seconds * row.dollars / row.paid_seconds if seconds and row.dollars and row.paid_seconds else None


def _sum(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return math.fsum(known) if known and len(known) == len(values) else None


def _is_a_loss(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
