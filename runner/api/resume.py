"""Runs that stopped before their end -> the same runs, trained to their end as runs of their sweep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from modal_app.halving.entries import FileEntries, entries_folder, go_of
from modal_app.halving.snapshot import Why
from modal_app.store.layout import Store
from runner.api.again import ComposedAgain, compose_again
from runner.errors import SweepError
from runner.executors.refresh import look_again
from runner.files.places import state_of
from runner.launch.sweep import run_sweep, show_results
from runner.request import Request
from runner.store.finding import runs_in
from runner.store.ledger import Ledger, SweepRun, sweep_ids
from runner.store.run_state import RunStatus, status_text
from runner.store.searches import searches_of
from runner.store.stores import is_mirror
from runner.types import Experiment, RunResult

RESUMABLE = (RunStatus.AT_RUNG, RunStatus.STOPPED, RunStatus.LOST, RunStatus.FAILED)


@dataclass(frozen=True, slots=True)
class StoppedRuns:
    """Runs of a sweep that are to be resumed."""

    store: Store
    sweep: str
    runs: tuple[SweepRun, ...]


def stopped_runs(known: Sequence[Store], names: Sequence[str]) -> list[StoppedRuns]:
    """The runs with these keys or beginnings of keys, each with the sweep that it is resumed in. Raises SweepError for
    one that cannot be resumed."""
    found: dict[tuple[str, str], StoppedRuns] = {}
    for name in dict.fromkeys(names):
        store, run = _run_named(known, name)
        sweep = _sweep_of(store, run.key)
        look_again(store, sweep, [run])
        _check_resumable(store, sweep, run)
        before = found.get((str(store.root), sweep))
        runs = (*before.runs, run) if before else (run,)
        found[str(store.root), sweep] = StoppedRuns(store, sweep, tuple(dict.fromkeys(runs)))
    return list(found.values())


def resume(stopped: StoppedRuns, *, budget: float | None, confirmed: bool, as_json: bool) -> list[RunResult]:
    """Train them to their end, and print the table of their sweep. Raises SweepError if they would be others now."""
    composed = _composed(stopped)
    composed.planned("it has no checkpoint to resume from")
    if not is_mirror(stopped.store):
        ask_for(stopped)
    request = replace(composed.request, budget=budget, confirmed=confirmed, json=as_json)
    return run_sweep(composed.experiments, request, show_results)


def _run_named(known: Sequence[Store], name: str) -> tuple[Store, SweepRun]:
    store, runs, sweep = runs_in(known, name)
    if sweep is None:
        return store, runs[0]
    states = {run.key: state_of(store, run) for run in runs}
    waiting = [key for key, state in states.items() if state.status in RESUMABLE]
    listed = f"It has stopped: {' '.join(waiting)}" if waiting else "None of its runs has stopped before its end"
    rungs = " without search.rungs" if searches_of(store, sweep) else ""
    command = Ledger(store, sweep).plan().command
    launched = f" It was launched with: {command}" if command else ""
    raise SweepError(
        f"{sweep} is a sweep, and resume takes runs. {listed}. To finish all its runs, launch it "
        f"again{rungs}.{launched}"
    )


def _sweep_of(store: Store, run: str) -> str:
    """The newest sweep that has stopped it at a rung, or otherwise the newest that has it."""
    sweeps = [one for one in sweep_ids(store) if run in {it.key for it in Ledger(store, one).plan().runs}]
    halved = [one for one in sweeps if any(run in search.reached for search in searches_of(store, one))]
    return (halved or sweeps)[0]


def _check_resumable(store: Store, sweep: str, run: SweepRun) -> None:
    state = state_of(store, run)
    if state.status in RESUMABLE:
        return
    status = status_text(state.status, state.reason, state.rung)
    match state.status:
        case RunStatus.SUCCEEDED:
            why = "it has finished"
        case RunStatus.RUNNING:
            why = f"it is running; `axosweep logs {run.key} -f` follows it"
        case _:
            why = f"it has not begun ({status}). Launching {sweep} again starts it"
    raise SweepError(f"{run.key}: there is nothing to resume, since {why}.")


def _composed(stopped: StoppedRuns) -> ComposedAgain:
    experiments: list[Experiment] = []
    request: Request | None = None
    for run in stopped.runs:
        again, request = compose_again(run.overrides, stopped.store, stopped.sweep)
        experiments += again
    assert request is not None, "there is a run"
    return ComposedAgain(tuple(experiments), request, tuple(run.key for run in stopped.runs))


def ask_for(stopped: StoppedRuns) -> None:
    """Say in each search that has stopped one of the runs that it goes on, and why."""
    for search in searches_of(stopped.store, stopped.sweep):
        entries = FileEntries(entries_folder(stopped.store, search.id))
        for run in stopped.runs:
            for one in search.reached.get(run.key, ()):
                if one.was_stopped and one.why is None:
                    entries.put(go_of(one.rung, run.key), {"why": Why.ASKED})
