"""`axosweep sync`: bring W&B up to date with this store: offline runs, lost steps, tags, dollars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from modal_app.process.tracking import TrackingRecord, axolotl_config, sweep_tag
from modal_app.store.layout import StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.redact import redacted
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from runner.compare.params import label
from runner.compare.ranking import Row, compare_sweep
from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.errors import ExitCode, SweepError
from runner.store.finding import sweep_in
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus
from runner.store.stores import is_mirror, stores
from runner.wandb.call import call, check_reachable
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
class Synced:
    """What `sync --json` prints."""

    sweep: str
    runs: tuple[SyncedRun, ...]


SUMMARY = ("seconds", "train_seconds", "paid_seconds", "dollars", "max_steps", "gpu", "peak_memory_gib")
"""What a run's summary in W&B gets in the end: values over all attempts, which a single attempt does not know."""


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
    runs = [
        _local_run(store, row, tracked[row.key], sweep) for row in rows if row.key in tracked and row.key not in running
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


def _local_run(store: Store, row: Row, record: TrackingRecord, sweep: str) -> LocalRun:
    folder = _folder(store, row.key)
    known = {"run_key": row.key, "data_key": row.data_key, "eval_fingerprint": row.eval_fingerprint}
    swept = redacted({**row.params, **{name: value for name, value in known.items() if value}})
    later = {sweep_tag(one) for one in (*record.sweeps, sweep) if one != record.group}
    return LocalRun(
        key=row.key,
        folder=str(folder.path),
        id=record.id,
        project=record.project or "axosweep",
        entity=record.entity,
        group=record.group,
        name=record.name or label(row.params) or row.key,
        tags=record.tags,
        sweeps=tuple(sorted(later)),
        config={**axolotl_config(read_json(folder.identity)), **swept},
        summary={name: value for name in SUMMARY if (value := getattr(row, name)) is not None},
        notes=_notes(store, record, sweep),
        succeeded=row.status is RunStatus.SUCCEEDED,
    )


def _notes(store: Store, record: TrackingRecord, sweep: str) -> tuple[str, ...]:
    """Of the first sweep that ran it, and of this one. Without secrets."""
    return tuple(map(redacted, dict.fromkeys(filter(None, (record.note, Ledger(store, sweep).plan().note)))))


def _show(sweep: str, rows: list[Row], texts: Mapping[str, str], failing: Set[str], *, as_json: bool) -> None:
    if as_json:
        runs = (SyncedRun(row.key, label(row.params), texts[row.key], row.key in failing) for row in rows)
        print_json(Synced(sweep, tuple(runs)))
        return
    terminal.result(f"{sweep}: {len(rows)} runs")
    for row in rows:
        terminal.result(f"  {row.key}  {'FAILED: ' if row.key in failing else ''}{texts[row.key]}")
    if failing:
        terminal.message(f"{len(failing)} of {len(rows)} failed. The same command tries them again.", style="yellow")
