"""Rungs on Modal: a container answers the questions of its trainer, and each call that ends starts what goes on.

No process has to stay alive for that. Each call that records a stop looks for runs to start afterwards, so the last one
sees all entries. Of several calls that look at the same time, one starts a run:

    start/<call>/train/<key>   the call that creates the successor of <call>
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import modal
import modal.exception

from modal_app.cloud import volumes
from modal_app.cloud.claims import call_each, is_live, last_claim
from modal_app.cloud.connection import lost_connections
from modal_app.cloud.executions import put_if_absent
from modal_app.cloud.job import RUNS_MOUNT, Job, job_name
from modal_app.cloud.rung_entries import DictEntries, searches_in, values_of
from modal_app.halving.asking import give_answer, open_questions
from modal_app.halving.choose import to_be_started
from modal_app.halving.entries import TERMS, go_of
from modal_app.halving.halve import ask, known_answer, look
from modal_app.halving.snapshot import Snapshot, Why
from modal_app.store.layout import Attempt, Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import OutcomeStatus, Step, StepKind


def answering(claims: modal.Dict, step: Step, attempt: Attempt) -> Callable[[], None] | None:
    """A function that answers the questions of an attempt's trainer; None for a step without rungs. Call it before the
    trainer starts, so that a run that goes on from the rung where it stopped finds its answer.

    While Modal does not answer, the function does nothing, and is called again later. By then the trainer may have gone
    on, but its loss is recorded for the other runs.
    """
    entries, rungs = entries_of(claims, step), step.rungs
    if entries is None or rungs is None:
        return None
    with contextlib.suppress(modal.exception.Error), lost_connections():
        for rung in range(1, len(rungs.fractions) + 1):
            if known := known_answer(entries, step.key, rung):
                give_answer(attempt, rung, known)

    def answer() -> None:
        for one in open_questions(attempt, len(rungs.fractions)):
            try:
                with lost_connections():
                    found = ask(entries, one.run, one.rung, one.reading)
            except modal.exception.Error:
                return
            give_answer(attempt, one.rung, found)

    return answer


def entries_of(claims: modal.Dict, step: Step) -> DictEntries | None:
    """Those of the search of a step, in a container; None where the step has no rungs."""
    if step.kind is not StepKind.TRAIN or step.rungs is None:
        return None
    return DictEntries(claims, step.rungs.search, Store(RUNS_MOUNT))


def look_around(claims: modal.Dict, job: Job, me: str) -> None:
    """At the end of a call: start every run of its search that goes on now. Nothing for a step without rungs.

    Raises a refusal of Modal that another try may get past; the same call may be repeated.
    """
    entries = entries_of(claims, job.read_step())
    if entries is None:
        return
    runs = [volumes.named(job.runs_volume)]
    volumes.reload_what_can_be(runs)  # it has what Modal has deleted
    found = look(entries)
    copy = dict(claims.items())
    ours = _to_call(claims, copy, job.read_halved(), me, found)
    refused = call_each(claims, ours, copy)
    entries.write_missing(copy)
    volumes.commit(runs)
    for refusal in refused.values():
        raise refusal


def _to_call(
    claims: modal.Dict, copy: Mapping[str, Any], jobs: Mapping[str, Job], me: str, runs: Iterable[str]
) -> list[tuple[str, Job]]:
    """The jobs of these runs that this call starts, each with the key of its claim."""
    store, following = Store(RUNS_MOUNT), list[tuple[str, Job]]()
    for name in map(_name, runs):
        key, last = last_claim(copy.get, name)
        if f"cancelled/{name}" in copy or name not in jobs:
            continue
        if _has_stopped(copy, name, store) and may_start(claims, name, key, last, me):
            following.append((key, jobs[name]))
    return following


def waits_for(claims: Mapping[str, Any]) -> set[str]:
    """The jobs that have ended at a rung, but may not stay there: one is about to be started, or no call has decided on
    it since it ended. From a copy of the claims."""
    found: set[str] = set()
    for search in searches_in(claims):
        items = values_of(claims, search)
        if TERMS not in items:
            continue
        snapshot = Snapshot.of(items)
        ended = [run for run in snapshot.terms.rates if _ended_at_rung(claims, _name(run))]
        going = to_be_started(snapshot)
        found |= {_name(run) for run in ended if run in going or not _stays(snapshot, run, snapshot.last_rung(run))}
    return found


def staying(claims: Mapping[str, Any], search: str) -> set[str]:
    """The jobs of the runs that have stopped at the last rung that they have come to, and do not go on now. `claims`: a
    copy, from after a look."""
    items = values_of(claims, search)
    if TERMS not in items:
        return set()
    snapshot = Snapshot.of(items)
    return {_name(run) for run in snapshot.terms.rates if _stays(snapshot, run, snapshot.last_rung(run))}


def rungs_of(claims: Mapping[str, Any]) -> dict[str, list[tuple[str, int]]]:
    """Run key -> the searches that it is in, and their numbers of rungs. From a copy of the claims."""
    found: dict[str, list[tuple[str, int]]] = {}
    for search in searches_in(claims):
        terms = values_of(claims, search).get(TERMS, {"rates": {}})
        for run in terms["rates"]:
            found.setdefault(run, []).append((search, len(terms["fractions"])))
    return found


def ask_in_full(claims: modal.Dict, run: str, rungs: Iterable[tuple[str, int]], store: Store) -> None:
    """Record that a run goes on from every rung of its searches."""
    for search, number in rungs:
        for rung in range(1, number + 1):
            DictEntries(claims, search, store).put(go_of(rung, run), {"why": Why.ASKED})


def _stays(snapshot: Snapshot, run: str, rung: int) -> bool:
    return run in snapshot.stopped.get(rung, ()) and not snapshot.has_gone(rung, run)


def _has_stopped(claims: Mapping[str, Any], name: str, store: Store) -> bool:
    """Whether the last call of a job has ended at a rung. What Modal has deleted is on the Volume."""
    last = last_claim(claims.get, name)[1]
    if last is None and f"ended/{name}" not in claims:
        return observe(store, StepKind.TRAIN, name.partition("/")[2]).phase is Phase.AT_RUNG
    return _ended_at_rung(claims, name)


def _ended_at_rung(claims: Mapping[str, Any], name: str) -> bool:
    ended = claims.get(f"ended/{name}")
    if ended is None or ended["status"] != OutcomeStatus.AT_RUNG:
        return False
    return last_claim(claims.get, name)[1] in (None, ended["by"])


def may_start(claims: modal.Dict, name: str, claim: str, last: str | None, me: str) -> bool:
    """Whether this call starts the job: each call that starts one costs a GPU for a moment. If the call that has the
    entry has died before it started the job, another call may start it. `claim`: the key of the claim of the started
    call."""
    key = f"start/{last or ''}/{name}"
    if put_if_absent(claims, key, {"by": me}):
        return True
    by = claims.get(key, {"by": me})["by"]
    # A call that has ended has claimed what it started, maybe since the claims were copied.
    return by == me or (not is_live(by) and claim not in claims)


def _name(run: str) -> str:
    return job_name(StepKind.TRAIN, run)
