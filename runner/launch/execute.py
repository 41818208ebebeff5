"""Plan -> outcomes: stores inputs, creates folders, opens the ledger, and runs every step that is not done."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from modal_app.store.claim import AlreadyClaimed, claim
from modal_app.store.layout import Store
from modal_app.store.step import StepKind, write_atomically
from modal_app.store.verified import withdraw_damaged
from runner.console import terminal
from runner.errors import SweepError
from runner.executors.choose import STARTING, executor_for, validator_at_hand
from runner.executors.mixed_workers import MixedWorkers
from runner.keys.content import ContentHashes, keep, keep_files, keep_folder
from runner.keys.inputs import ADAPTER, staged_name
from runner.keys.row_files import keep_rows
from runner.launch.notices import Notifier, notifier_of
from runner.launch.price import expected_of
from runner.launch.rungs import put_terms
from runner.launch.schema import ask_schema, refuse_blocked
from runner.launch.start_checkpoint import keep_checkpoint
from runner.launch.types import Launch
from runner.show.progress import Progress
from runner.store.ledger import Ledger
from runner.types import Gpu, Input, InputKind, Run, StartCheckpoint
from runner.wandb.sweep_object import with_sweep_objects


def execute(launch: Launch, workers: MixedWorkers | None) -> Notifier:
    """Run what is not done. Returns what has sent notices meanwhile. `workers`: preloaded ones, for a launch on this
    machine's CPU.

    Raises SweepError before anything starts; a step that fails is recorded.
    """
    ledger, preflight = Ledger(launch.store, launch.plan.sweep), launch.preflight
    executor = executor_for(launch.executor, launch.plan, launch.store, ledger, workers, launch.request)
    starts_now = launch.on_this_machine and not preflight.unanswered(launch.pending_experiments)
    if launch.on_this_machine:
        ask_schema(launch, workers or validator_at_hand(launch.store), message=STARTING)
        refuse_blocked(launch)
    preflight.show_rest(terminal.messages())
    launch = replace(launch, plan=with_sweep_objects(launch.plan, launch.store))
    _make_folders(launch)
    record_request(launch)
    put_terms(launch.plan, launch.store)
    if starts_now and not (workers and workers.is_up):
        terminal.message(STARTING)
    notifier = notifier_of(launch)
    with Progress(launch.plan, launch.store) as progress:
        executor.execute(launch.plan, _watch(launch, progress, notifier))
    return notifier


def _watch(launch: Launch, progress: Progress, notifier: Notifier) -> Callable[[], None]:
    """Shows the progress and sends notices, after noting the plan's estimate once. Steps are running then, and need not
    wait for it.
    """
    noted = False

    def watch() -> None:
        nonlocal noted
        if not noted:
            noted = True
            expected_of(launch).save(launch.store, launch.plan.sweep)
        progress.update()
        notifier.look()

    return watch


def record_request(launch: Launch) -> None:
    """Record in the sweep's folder what was requested, and by which command line."""
    command = shlex.join(["axosweep", *sys.argv[1:]])
    Ledger(launch.store, launch.plan.sweep).open(launch.plan, command, launch.request.note)


def _make_folders(launch: Launch) -> None:
    store = launch.store
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(f"The store {store.root} cannot be created: {error.strerror}.") from error
    for dataset in launch.plan.datasets:
        if dataset.damage:
            with contextlib.suppress(AlreadyClaimed), claim(store.folder(StepKind.PREPROCESS, dataset.key)):
                withdraw_damaged(store, dataset.key)
    runs = [planned.run for planned in launch.plan.pending]
    hashes = ContentHashes(store.cache / "hashes.json")
    for found in dict.fromkeys(one for run in runs for one in run.inputs):
        _store_input(found, store, hashes)
    hashes.save()
    for run in runs:
        _prepare_folder(store, run, launch.trainer)


def _prepare_folder(store: Store, run: Run, trainer: str) -> None:
    """Create the run's folder with the record of the request."""
    folder = store.folder(StepKind.TRAIN, run.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.removed.unlink(missing_ok=True)  # it is requested again
    if not folder.identity.exists():
        write_atomically(folder.identity, json.dumps(_identity(run, trainer), indent=1))


def _store_input(found: Input, store: Store, hashes: ContentHashes) -> None:
    """Put an input into the store. Raises SweepError if it changed after it was hashed."""
    if found.kind is InputKind.HUB:
        return
    assert found.identity is not None
    source, target = Path(found.text), store.root / staged_name(found)
    if found.kind is InputKind.CHECKPOINT:
        keep_checkpoint(source, found.identity, target)
    elif found.kind in (InputKind.ROWS, InputKind.ROW_FILES):
        keep_rows(found, target, hashes)
    elif found.kind is InputKind.CODE:
        keep_files({name: Path(path) for name, path in found.files}, found.identity, target, found.text)
    elif found.kind is InputKind.FOLDER and found.at == ADAPTER:
        keep_folder(source, found.identity, target)
    else:
        keep(source, found.identity, target, hashes)


def _identity(run: Run, trainer: str) -> dict[str, object]:
    experiment = run.experiment
    return {
        "key": run.key,
        "data_key": run.data_key,
        "overrides": list(experiment.overrides),
        "axolotl": dict(experiment.axolotl),
        "gpu": {"type": experiment.gpu.type, "count": experiment.gpu.count} | _fallback(experiment.gpu),
        "data": {"limit": experiment.data.limit, "seed": experiment.data.seed},
        "inputs": [{"at": one.at, "text": one.text, "identity": one.identity} for one in run.inputs],
        "trainer_lock": trainer,
        **({"from": _start(experiment.start_checkpoint)} if experiment.start_checkpoint else {}),
    }


def _start(start: StartCheckpoint) -> dict[str, object]:
    return {"run": start.run, "step": start.step, "identity": start.identity}


def _fallback(gpu: Gpu) -> dict[str, object]:
    return {"fallback": list(gpu.fallback)} if gpu.fallback else {}
