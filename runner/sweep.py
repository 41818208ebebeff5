"""The straight line: experiments -> identified runs -> plan -> executor -> ledger -> rows."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from modal_app.layout import Store
from modal_app.settings import trainer_identity
from modal_app.step import StepKind, write_atomically
from runner import report, terminal, trainer_environment
from runner.compare import Row, compare_sweep
from runner.content import ContentHashes, keep
from runner.errors import SweepError
from runner.identity import identify_run, told_apart_by_gpu
from runner.inputs import find_inputs, how_to_pin, identify, staged_name
from runner.ledger import Ledger
from runner.plan import make_plan
from runner.progress import Progress
from runner.rows import check_rows
from runner.store import store_of
from runner.types import Action, ExecutorChoice, Experiment, Gpu, InputKind, Plan, PlannedRun, Request, Run, RunResult
from runner.wiring import executor_for, one_executor


def launch(experiments: Sequence[Experiment], request: Request) -> list[RunResult]:
    """Plan the experiments, say what would run, and (unless asked only to plan) run it.

    Returns one result per experiment, in order; an experiment asked twice has the same result twice.
    Raises SweepError before anything starts; a run that fails is a result, not an error.
    """
    choice = one_executor(experiments)
    store = store_of(choice.type, request.store)
    hashes = ContentHashes(store.cache / "hashes.json")
    runs = told_apart_by_gpu([_identified(experiment, hashes) for experiment in experiments])
    hashes.save()
    plan = make_plan(runs, request.name, lambda kind, key: store.folder(kind, key).done.exists())
    # A launch in JSON ends in its rows: what precedes them must not stand on the same stream.
    console = terminal.messages() if request.json else terminal.results()
    report.show_plan(plan, store, as_json=request.json and request.action is Action.PLAN, console=console)
    if request.action is Action.PLAN:
        return []
    _refuse_unresolved(plan)
    if plan.pending:
        _execute(plan, store, choice)
    else:
        Ledger(store, plan.sweep).open(plan, _command())
    rows = compare_sweep(store, plan.sweep)
    report.show_rows(rows, store, plan.sweep, as_json=request.json)
    return _results(runs, rows)


def _identified(experiment: Experiment, hashes: ContentHashes) -> Run:
    found = find_inputs(experiment.axolotl)
    for dataset in experiment.axolotl.get("datasets") or ():
        check_rows(dataset)
    inputs = tuple(identify(one, experiment.axolotl, hashes) for one in found)
    return identify_run(experiment, inputs, trainer_lock=_trainer(experiment.executor))


def _trainer(choice: ExecutorChoice) -> str:
    """What trains: the lock, or what the executor puts over it."""
    return trainer_identity(trainer_environment.lock_hash(), choice.modal or {})


def _refuse_unresolved(plan: Plan) -> None:
    if plan.unresolved:
        lines = [f"  {one.at}={one.text}: {one.problem}. Pin it: {how_to_pin(one)}" for one in plan.unresolved]
        raise SweepError(
            "Nothing was started: what these names stand for now is not known, so what would be trained is not.\n"
            + "\n".join(lines)
        )


def _execute(plan: Plan, store: Store, choice: ExecutorChoice) -> None:
    ledger = Ledger(store, plan.sweep)
    executor = executor_for(choice, plan, store, ledger)
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(f"The store {store.root} cannot be made: {error.strerror}.") from error
    for planned in plan.pending:
        _prepare_folder(store, planned)
    ledger.open(plan, _command())
    if choice.type == "local":
        terminal.messages().print("Starting Axolotl; its imports take some seconds.")
    with _terminate_as_interrupt(), Progress(plan, store) as progress:
        executor.execute(plan, progress.update)


def _prepare_folder(store: Store, planned: PlannedRun) -> None:
    """The run's inputs kept, and its folder with what was asked."""
    run = planned.run
    for found in run.inputs:
        if found.kind is not InputKind.HUB:
            assert found.identity is not None
            keep(Path(found.text), found.identity, store.root / staged_name(found))
    folder = store.folder(StepKind.TRAIN, run.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    if not folder.identity.exists():
        write_atomically(folder.identity, json.dumps(_identity(run), indent=1))


def _identity(run: Run) -> dict[str, object]:
    experiment = run.experiment
    return {
        "key": run.key,
        "data_key": run.data_key,
        "overrides": list(experiment.overrides),
        "axolotl": dict(experiment.axolotl),
        "gpu": {"type": experiment.gpu.type, "count": experiment.gpu.count} | _fallback(experiment.gpu),
        "data": {"limit": experiment.data.limit, "seed": experiment.data.seed},
        "inputs": [{"at": one.at, "text": one.text, "identity": one.identity} for one in run.inputs],
        "trainer_lock": _trainer(experiment.executor),
    }


def _fallback(gpu: Gpu) -> dict[str, object]:
    return {"fallback": list(gpu.fallback)} if gpu.fallback else {}


def _results(runs: Sequence[Run], rows: Sequence[Row]) -> list[RunResult]:
    by_key = {row.key: row for row in rows}
    return [
        RunResult(run.key, row.status == "succeeded", row.best, row.message)
        for run in runs
        for row in [by_key[run.key]]
    ]


def _command() -> str:
    return shlex.join(["axosweep", *sys.argv[1:]])


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """SIGTERM ends a launch as Ctrl-C does: workers checkpoint and stop."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
