"""A sweep of a store -> its live view, for those who follow it without having launched it. Only reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.state import StepState, observe
from modal_app.store.step import StepKind
from runner.compare.params import label, shown_params
from runner.compare.source import RunFacts
from runner.cost.spent import sweep_cost
from runner.show.headway import ExpectedSeconds, Headway, Timing, headway_of
from runner.show.line import Line
from runner.show.rung_words import step_and_loss
from runner.show.step_progress import with_progress
from runner.store.going_on import goes_on
from runner.store.ledger import Event, Ledger
from runner.store.run_state import RunStatus, reason_of, status_of


def headway_of_sweep(store: Store, sweep: str, facts: Sequence[RunFacts], now: float) -> Headway:
    """Since its last launch, or its first run where the launch is not known."""
    ledger = Ledger(store, sweep)
    launches = [record.at for record in ledger.records() if record.event is Event.LAUNCHED]
    begun = [one.started_at for one in facts if one.started_at is not None]
    since = launches[-1] if launches else min(begun, default=now)
    expected = ExpectedSeconds.read(store, sweep)
    known = expected.runs if expected else {}
    datasets = [line.timing for line in _datasets(store, facts) if line.timing]
    # A run that reads its own data needs no preparing, and the estimate does not have it.
    datasets = [one for one in datasets if one.status is RunStatus.RUNNING or one.key in known]
    timings = [timing_of(one, since) for one in facts]
    going_on = goes_on(store, sweep, [one.status for one in timings])
    if not going_on:
        now = max((one.ended_at for one in timings if one.ended_at), default=now)
    cost = sweep_cost(store, sweep, ledger.plan().runs)
    headway = headway_of(timings, datasets, expected, since=min(since, now), now=now, cost=cost)
    return headway if going_on else replace(headway, left_s=None)


def lines_of(store: Store, facts: Sequence[RunFacts]) -> list[Line]:
    """A line for each run, and for the datasets that are being prepared."""
    datasets = [line for line in _datasets(store, facts) if line.status is RunStatus.RUNNING]
    runs = [with_progress(line, store.folder(StepKind.TRAIN, line.key)) for line in run_lines(facts)]
    return [*datasets, *runs]


def run_lines(facts: Sequence[RunFacts]) -> list[Line]:
    params = shown_params([one.config for one in facts], [one.overrides for one in facts])
    return [_run(one, own) for one, own in zip(facts, params, strict=True)]


def _run(facts: RunFacts, params: Mapping[str, Any]) -> Line:
    reached = facts.rungs[-1] if facts.rungs else None
    step, eval_loss = step_and_loss(facts.status, facts.curves, reached)
    return Line(
        kind=StepKind.TRAIN,
        key=facts.key,
        label=label(params) or facts.key,
        status=facts.status,
        reason=facts.reason,
        step=f"{step}/{facts.max_steps}" if facts.max_steps else "",
        loss=facts.curves.final("loss"),
        eval_loss=eval_loss,
        message="" if facts.status is RunStatus.AT_RUNG else facts.message,
        dollars=facts.dollars,
        params=params,
        timing=timing_of(facts, 0.0),
        rung=facts.rung,
        reached=reached,
    )


def _datasets(store: Store, facts: Sequence[RunFacts]) -> list[Line]:
    """Those that waiting runs need, and that are not prepared."""
    keys = dict.fromkeys(one.data_key for one in facts if one.status is RunStatus.PENDING)
    states = [(key, observe(store, StepKind.PREPROCESS, key)) for key in keys]
    return [
        with_progress(_dataset(key, state), store.folder(StepKind.PREPROCESS, key))
        for key, state in states
        if status_of(state) is not RunStatus.SUCCEEDED
    ]


def _dataset(key: str, state: StepState) -> Line:
    timing = Timing(key, status_of(state), started_at=state.started_at)
    return Line(StepKind.PREPROCESS, key, key, status_of(state), reason_of(state), timing=timing)


def timing_of(facts: RunFacts, since: float) -> Timing:
    """`since`: runs that ended before are not counted as evidence of the present speed."""
    steps = facts.max_steps or 0
    return Timing(
        key=facts.key,
        status=facts.status,
        part=min((facts.curves.step or 0) / steps, 1.0) if steps else 0.0,
        started_at=facts.started_at,
        ended_at=facts.ended_at,
        logged_at=facts.curves.logged_at,
        startup_s=facts.startup_seconds,
        resumed_part=facts.resumed_from / steps if steps else 0.0,
        before=facts.ended_at is not None and facts.ended_at < since,
        rung=facts.rung,
    )
