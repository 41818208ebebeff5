"""`axosweep sync`: bring W&B up to date with this store: offline runs, lost steps, tags, dollars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from modal_app.process.tracking import TrackingRecord
from modal_app.store.layout import StepFolder, Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from runner.compare.params import label
from runner.compare.ranking import EVAL_LOSS, Row, compare_sweep
from runner.compare.row_losses import verdicts_of
from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.errors import ExitCode, SweepError
from runner.store.finding import sweep_in
from runner.store.stores import is_mirror, stores
from runner.wandb.call import call, check_reachable
from runner.wandb.local_runs import local_run
from runner.wandb.messages import LocalRun, UploadRequest, UploadResponse, UploadResult


@dataclass(frozen=True, slots=True)
class SyncedRun:
    key: str
    label: str
    """Its parameters."""
    said: str
    """What was done, or why not."""
    failed: bool


@dataclass(frozen=True, slots=True)
class SyncOutput:
    """What `sync --json` prints."""

    sweep: str
    runs: tuple[SyncedRun, ...]


def parser() -> VerbParser:
    about = "Bring W&B up to date: offline runs, steps that killed runs lost, tags of later sweeps, dollars."
    verb = VerbParser("sync", description=about)
    verb.add_sweep()
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    found = sweep_in(stores(args.store), args.sweep)
    return sync(found.store, found.sweep, as_json=args.json)


def sync(store: Store, sweep: str, *, as_json: bool) -> int:
    """Returns 1 when something could not be uploaded, otherwise 0. Raises SweepError without a key or without W&B."""
    if is_mirror(store):
        from runner.executors import modal_verbs

        modal_verbs.look(store, sweep)
    rows = compare_sweep(store, sweep)
    tracked = {row.key: record for row in rows if (record := TrackingRecord.read(_folder(store, row.key).tracking))}
    running = {row.key for row in rows if observe(store, StepKind.TRAIN, row.key).phase is Phase.RUNNING}
    verdicts = {one.eval_fingerprint: one for one in verdicts_of(rows, EVAL_LOSS)}
    runs = [
        local_run(store, row, tracked[row.key], sweep, verdicts.get(str(row.eval_fingerprint)))
        for row in rows
        if row.key in tracked and row.key not in running
    ]
    results: tuple[UploadResult, ...] = ()
    if runs:
        check_reachable("Uploading", "Nothing was uploaded: the runs stay where they are until then.")
        missed = _fetch(store, sweep, runs) if is_mirror(store) else ()
        lost = {result.key for result in missed}
        failed = "W&B could not be brought up to date; its error is printed above."
        request = UploadRequest(tuple(run for run in runs if run.key not in lost))
        results = (*missed, *call(request, UploadResponse, failed=failed).results)
    texts = {result.key: result.text for result in results}
    failing = {result.key for result in results if result.failed}
    for row in rows:
        if row.key in running:
            texts[row.key] = "is running; left for a later sync"
        elif row.key not in tracked:
            texts[row.key] = "was never tracked (tracking=disabled, or not started): nothing to upload"
    _show(sweep, rows, texts, failing, as_json=as_json)
    return ExitCode.FAILED if failing else ExitCode.SUCCEEDED


def _fetch(store: Store, sweep: str, runs: Sequence[LocalRun]) -> list[UploadResult]:
    """Fetch the offline parts of runs on Modal. Returns a result for each run whose parts could not be fetched."""
    from runner.executors import modal_wandb

    missed = []
    for run in runs:
        try:
            modal_wandb.fetch_wandb(store, sweep, [run.key])
        except SweepError as error:
            missed.append(UploadResult(run.key, f"its files were not fetched: {error}", failed=True))
    return missed


def _folder(store: Store, key: str) -> StepFolder:
    return store.folder(StepKind.TRAIN, key)


def _show(sweep: str, rows: list[Row], texts: Mapping[str, str], failing: Set[str], *, as_json: bool) -> None:
    if as_json:
        runs = (SyncedRun(row.key, label(row.params), texts[row.key], row.key in failing) for row in rows)
        print_json(SyncOutput(sweep, tuple(runs)))
        return
    terminal.result(f"{sweep}: {len(rows)} runs")
    for row in rows:
        terminal.result(f"  {row.key}  {'FAILED: ' if row.key in failing else ''}{texts[row.key]}")
    if failing:
        terminal.message(f"{len(failing)} of {len(rows)} failed. The same command tries them again.", style="yellow")
