"""Plan -> outcomes: stores inputs, creates folders, opens the ledger, and runs every step that is not done."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from modal_app.store.layout import Store
from modal_app.store.step import StepKind, write_atomically
from runner.console import terminal
from runner.errors import SweepError
from runner.executors.choose import STARTING, executor_for, validator_at_hand
from runner.executors.mixed_workers import MixedWorkers
from runner.keys.content import keep, keep_folder
from runner.keys.inputs import ADAPTER, staged_name
from runner.launch.schema import ask_schema
from runner.launch.start_checkpoint import keep_checkpoint
from runner.launch.types import Launch
from runner.show.progress import Progress
from runner.store.ledger import Ledger
from runner.types import Gpu, Input, InputKind, Run, StartCheckpoint
from runner.wandb.sweep_object import with_sweep_objects


def execute(launch: Launch, workers: MixedWorkers | None) -> None:
    """Run what is not done. `workers`: preloaded ones, for a launch on this machine's CPU.

    Raises SweepError before anything starts; a step that fails is recorded.
    """
    ledger, preflight = Ledger(launch.store, launch.plan.sweep), launch.preflight
    executor = executor_for(launch.executor, launch.plan, launch.store, ledger, workers)
    starts_now = launch.on_this_machine and not preflight.unasked(launch.pending_experiments)
    if launch.on_this_machine:
        ask_schema(launch, workers or validator_at_hand(launch.store), STARTING)
        preflight.refuse_blocked()
    preflight.show_rest(terminal.messages())
    launch = replace(launch, plan=with_sweep_objects(launch.plan, launch.store))
    _make_folders(launch)
    record_request(launch)
    if starts_now and not (workers and workers.is_up):
        terminal.message(STARTING)
    with Progress(launch.plan, launch.store) as progress:
        executor.execute(launch.plan, progress.update)


def record_request(launch: Launch) -> None:
    """Record in the sweep's folder what was requested, and by which command line."""
    Ledger(launch.store, launch.plan.sweep).open(launch.plan, shlex.join(["axosweep", *sys.argv[1:]]))


def _make_folders(launch: Launch) -> None:
    store = launch.store
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(f"The store {store.root} cannot be created: {error.strerror}.") from error
    for planned in launch.plan.pending:
        _prepare_folder(store, planned.run, launch.trainer)


def _prepare_folder(store: Store, run: Run, trainer: str) -> None:
    """Store the run's inputs, and create its folder with the record of the request."""
    for found in run.inputs:
        if found.kind is not InputKind.HUB:
            assert found.identity is not None
            _store_function(found)(Path(found.text), found.identity, store.root / staged_name(found))
    folder = store.folder(StepKind.TRAIN, run.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.removed.unlink(missing_ok=True)  # it is requested again
    if not folder.identity.exists():
        write_atomically(folder.identity, json.dumps(_identity(run, trainer), indent=1))


def _store_function(found: Input) -> Callable[[Path, str, Path], None]:
    if found.kind is InputKind.CHECKPOINT:
        return keep_checkpoint
    return keep_folder if found.kind is InputKind.FOLDER and found.at == ADAPTER else keep


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
