"""The client's part in notices of sweeps on Modal: what they are about, and what was not sent."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from dataclasses import replace
from typing import Any

import modal
import modal.exception

from modal_app.cloud.claims import is_at_work, last_claim
from modal_app.cloud.connection import lost_connections
from modal_app.cloud.job import job_name
from modal_app.cloud.notices import WatchedSweep, start_due, unsent, watched_of
from modal_app.cloud.settings import Deployment
from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.step import StepKind
from runner.executors.modal_submission import read_submission
from runner.executors.modal_work import Work
from runner.types import Plan

PATIENCE_S = 6.0
POLL_S = 0.3


def watched(
    plan: Plan,
    work: Work,
    entries: Mapping[str, Any],
    deployment: Deployment,
    variable: str,
    budget: float | None,
    at_rungs: Set[str] = frozenset(),
    *,
    further: bool = False,
) -> WatchedSweep:
    """`entries`: the claims before the first call of this launch. `at_rungs`: the jobs of runs that have stopped and
    are not called now: how these have ended counts."""
    needs: dict[str, list[str]] = {name: [] for name in work.names}
    for before, jobs in work.waiting.items():
        for job in jobs:
            needs[job.name].append(before)
    earlier = {}
    for name in needs.keys() - at_rungs:
        _, call = last_claim(entries.get, name)
        if call is not None and not is_at_work(entries.get, name, call):
            earlier[name] = call
    shares = sum(one.step.share.dollars for one in plan.pending if one.step.share)
    return WatchedSweep(
        plan.sweep,
        variable,
        deployment.app_name,
        deployment.claims,
        needs,
        earlier,
        finished=len(plan.runs) - len(plan.pending),
        budget=budget,
        set_aside=max(0.0, (budget or 0.0) - shares),
        further=further,
    )


def settle(store: Store, sweep: str, finished: Set[str] | None = None, patience_s: float = PATIENCE_S) -> list[str]:
    """Start what is due and was not sent, wait a moment for it, and return why something was not sent.

    For a sweep that has ended. `finished`: the keys of all finished runs of a search that is over. Nothing for one that
    sends no notices, or while Modal does not answer.
    """
    if not (store.sweeps / sweep / SUBMISSION).exists():
        return []
    names, _ = read_submission(store, sweep)
    claims = modal.Dict.from_name(names.claims, create_if_missing=True)
    try:
        with lost_connections():
            found = watched_of(dict(claims.items()), sweep)
            if found is None:
                return []
            if finished is not None:
                others = {job_name(StepKind.TRAIN, key) for key in finished} - found.needs.keys()
                found = replace(found, further=False, finished=len(others))
                found.watch(claims)
            start_due(claims, found)
            deadline = time.monotonic() + patience_s
            while (left := unsent(dict(claims.items()), sweep)) and time.monotonic() < deadline:
                if all(left.values()):
                    break
                time.sleep(POLL_S)
    except modal.exception.Error:
        return []
    return sorted({why or "it is still being sent" for why in left.values()})
