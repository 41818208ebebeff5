"""Where a run's files are: in the store of this machine, or on Modal's Volumes, whose mirror has small ones only."""

from __future__ import annotations

from collections.abc import Sequence

from modal_app.store.layout import Store
from modal_app.store.state import observe
from modal_app.store.step import StepKind
from runner.compare.best import best_run
from runner.compare.ranking import compare_sweep
from runner.executors.refresh import look_again
from runner.files.run_files import Files, LocalFiles
from runner.store.finding import runs_in
from runner.store.ledger import SweepRun
from runner.store.run_state import RunState, run_state
from runner.store.stores import is_mirror


def chosen_run(known: Sequence[Store], name: str | None) -> tuple[Store, SweepRun]:
    """The run with that key or beginning of a key, finished or not. A sweep's name means its best run; None means the
    newest sweep.

    Raises SweepError."""
    store, runs, sweep = runs_in(known, name)
    if sweep is None or len(runs) == 1:
        return store, runs[0]
    look_again(store, sweep, runs)
    return store, best_run(runs, compare_sweep(store, sweep))


def files_of(store: Store, key: str) -> Files:
    """The files of a run. Raises SweepError for a run of a mirror that was never submitted. Only mirrors need Modal."""
    if not is_mirror(store):
        return LocalFiles(store)
    from runner.files.modal_files import files_of_run

    return files_of_run(store, key)


def state_of(store: Store, run: SweepRun) -> RunState:
    """The state of a run; in a mirror, as of the last look."""
    return run_state(store, run, observe(store, StepKind.TRAIN, run.key), {})
