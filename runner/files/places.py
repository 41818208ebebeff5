"""Where a run's files are: in the store of this machine, or on Modal's Volumes, whose mirror has small ones only."""

from __future__ import annotations

from collections.abc import Sequence

from modal_app.layout import Store
from modal_app.state import observe
from modal_app.step import StepKind
from runner.compare.best import winner
from runner.compare.ranking import EVAL_LOSS, compare_sweep
from runner.errors import SweepError
from runner.files.run_files import Files, LocalFiles
from runner.finding import runs_in
from runner.ledger import SweepRun
from runner.standing import standing
from runner.store import is_mirror


def chosen_run(known: Sequence[Store], asked: str | None) -> tuple[Store, SweepRun]:
    """The run of that key or its beginning, finished or not; a sweep, the newest where none is asked, means its best.

    Raises SweepError."""
    store, runs, sweep = runs_in(known, asked)
    if sweep is None or len(runs) == 1:
        return store, runs[0]
    if is_mirror(store) and not all(store.folder(StepKind.TRAIN, run.key).done.exists() for run in runs):
        from runner.executors import modal_verbs

        modal_verbs.look(store, sweep)  # a mirror is as old as the last look
    try:
        best = winner(compare_sweep(store, sweep), EVAL_LOSS)
    except SweepError as error:
        raise SweepError(f"{error} Or name one of its runs.") from error
    return store, next(run for run in runs if run.key == best.key)


def files_of(store: Store, key: str) -> Files:
    """Of a run. Raises SweepError for one of a mirror that was never submitted. Modal is imported for a mirror only."""
    if not is_mirror(store):
        return LocalFiles(store)
    from runner.executors.modal_files import files_of_run

    return files_of_run(store, key)


def status_of(store: Store, run: SweepRun) -> str:
    """How a run stands, in a word; in a mirror as it was seen last."""
    return standing(store, run, observe(store, StepKind.TRAIN, run.key), {}).word
