"""The straight line: experiments -> identified runs -> plan -> executor -> ledger -> rows."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from modal_app.cloud.settings import trainer_identity
from modal_app.store.facts import DataManifest
from modal_app.store.layout import Store
from modal_app.store.step import StepKind, write_atomically
from runner.after.stage_steps import failed_stages, with_stages
from runner.compare.ranking import Row, compare_sweep
from runner.config import checkout
from runner.console import terminal
from runner.console.interrupts import terminate_as_interrupt
from runner.environment import trainer_environment
from runner.errors import SweepError
from runner.estimate.plan import PlanCost, plan_cost
from runner.estimate.words import cost_json, cost_lines
from runner.executors.choose import (
    STARTING,
    executor_for,
    not_here,
    one_executor,
    pools_of,
    rates_of,
    refuse_unplaceable,
    validator_at_hand,
    verdicts_of,
    warming,
)
from runner.executors.warm_workers import MixedWorkers
from runner.html_report.finish import leave_report
from runner.keys.content import ContentHashes, keep, keep_folder
from runner.keys.identity import identify_run, told_apart_by_gpu
from runner.keys.inputs import ADAPTER, find_inputs, how_to_pin, identify, staged_name
from runner.launch.budget import above, bound_line, confirm, refuse_above, refuse_senseless, with_shares
from runner.launch.from_checkpoint import input_of, keep_checkpoint, refuse_unlike, started
from runner.launch.plan import make_plan
from runner.preflight.schema import Validator
from runner.preflight.stage import Preflight
from runner.show import tables
from runner.show.progress import Progress
from runner.store.ledger import Ledger
from runner.store.run_state import RunStatus
from runner.store.stores import open_store, store_of, stores
from runner.types import (
    Action,
    ExecutorChoice,
    Experiment,
    Gpu,
    Input,
    InputKind,
    Plan,
    PlannedRun,
    Request,
    Run,
    RunResult,
    Start,
)
from runner.wandb.sweep_object import with_sweep_objects

ASKING = "Asking Axolotl's own schema; its imports take some seconds."
ASKING_AT_ONCE = "Asking Axolotl's own schema."
NOT_ASKED = (
    "Axolotl's own schema was not asked: there is no current trainer environment here (axosweep setup builds it). What "
    "it refuses would fail when its dataset is prepared."
)


@terminate_as_interrupt()
def launch(experiments: Sequence[Experiment], request: Request) -> list[RunResult]:
    """Plan the experiments, say what would run, and (unless asked only to plan) run it.

    Returns one result per experiment, in order; an experiment asked twice has the same result twice.
    Raises SweepError before anything starts; a run that fails is a result, not an error.
    """
    choice = one_executor(experiments)
    experiments = started(experiments, stores(request.store))
    store = store_of(choice.type, request.store)
    preflight = Preflight(experiments, verdicts_of(open_store(request.store)), force=request.force)
    if request.action is Action.PLAN:
        return _launch(experiments, request, choice, store, preflight, None)
    with warming(choice, experiments, store) as warm:
        return _launch(experiments, request, choice, store, preflight, warm)


def _launch(
    experiments: Sequence[Experiment],
    request: Request,
    choice: ExecutorChoice,
    store: Store,
    preflight: Preflight,
    warm: MixedWorkers | None,
) -> list[RunResult]:
    def validator() -> Validator | None:
        return warm or validator_at_hand(open_store(request.store))

    if preflight.blocked:
        preflight.refuse(terminal.messages(), validator)
    if warm:
        warm.warm_up()
    hashes = ContentHashes(store.cache / "hashes.json")
    trainer = _trainer(choice)  # one for all: it hashes files
    runs = told_apart_by_gpu([_identified(experiment, hashes, trainer) for experiment in experiments])
    hashes.save()
    for run in runs:
        refuse_unlike(run)
    preflight.longest_rows = [_longest_row(store, run) for run in runs]
    plan = make_plan(runs, request.name, lambda kind, key: store.folder(kind, key).done.exists(), checkout.commit())
    plan = with_stages(plan, store)
    pending = {planned.run.key for planned in plan.pending}
    preflight.finished = frozenset(number for number, run in enumerate(runs) if run.key not in pending)
    refuse_senseless(choice, request)
    refuse_unplaceable(choice, plan)
    # A launch in JSON ends in its rows: what precedes them must not stand on the same stream.
    console = terminal.messages() if request.json else terminal.results()
    as_json = request.json and request.action is Action.PLAN
    if not as_json:
        tables.show_plan(plan, store, as_json=False, console=console)
    if request.action is Action.PLAN:
        _tell_plan(plan, store, choice, preflight, request)
        return []
    _refuse_unresolved(plan)
    if plan.has_work and preflight.blocked:
        preflight.refuse(terminal.messages(), validator)
    if plan.has_work:
        _execute(plan, store, choice, preflight, request, warm)
    else:
        Ledger(store, plan.sweep).open(plan, _command())
    if not any(planned.trains for planned in plan.runs):
        return [_prepared(run, store) for run in runs]
    rows = compare_sweep(store, plan.sweep)
    tables.show_rows(rows, store, plan.sweep, as_json=request.json)
    terminal.say(console, leave_report(store, plan.sweep))
    failed = failed_stages(plan, store)
    for key, why in failed.items():
        terminal.message(f"{tables.names_of(plan)[key]}: {why}")
    return _results(runs, rows, failed)


def _tell_plan(plan: Plan, store: Store, choice: ExecutorChoice, preflight: Preflight, request: Request) -> None:
    """All that is known of a plan, then SweepError with what keeps it from starting."""
    from runner.launch.plan_extras import beyond  # late: no run waits for it

    asked = _asked(preflight, plan, validator_at_hand(open_store(request.store)))
    cost, missing = _cost(plan, store, choice, request, ask=False), not_here(choice, plan)
    ready = not (preflight.blocked or plan.unresolved or missing or above(cost, request))
    more = beyond(plan, store, request, trainer=_trainer(choice), arguments=sys.argv[1:], ready=ready)
    if request.json:
        said = {**more.json, "cost": cost_json(cost), "preflight": preflight.as_json(schema_asked=asked)}
        tables.show_plan(plan, store, as_json=True, beyond=said)
    else:
        console = terminal.results()
        preflight.show_rest(console)
        for line in (*preflight.memory_lines(), *_cost_lines(cost, plan, request), *more.lines):
            terminal.say(console, line)
    if missing:
        terminal.message(f"note: {missing}", style="yellow")
    preflight.refuse_blocked()  # after all that is worth knowing of it
    refuse_above(cost, request)


def _identified(experiment: Experiment, hashes: ContentHashes, trainer: str) -> Run:
    found = find_inputs(experiment.axolotl)
    inputs = [identify(one, experiment.axolotl, hashes) for one in found]
    inputs += [input_of(experiment.start)] if experiment.start else []
    return identify_run(experiment, inputs, trainer_lock=trainer)


def _longest_row(store: Store, run: Run) -> int | None:
    """Tokens; None where its dataset is not prepared here."""
    return DataManifest.read(store.manifest(run.data_key)).longest_row


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


def _asked(preflight: Preflight, plan: Plan, validator: Validator | None, saying: str = ASKING) -> bool:
    """Whether Axolotl's own verdict on all that would run is known, asking for what is not."""
    wanted = [planned.run.experiment for planned in plan.pending]
    if not preflight.unasked(wanted):
        return True
    if validator is None:
        terminal.message(NOT_ASKED)
        return False
    terminal.message(ASKING_AT_ONCE if validator.is_up else saying)
    preflight.ask(validator, wanted)
    return True


def _cost(plan: Plan, store: Store, choice: ExecutorChoice, request: Request, *, ask: bool) -> PlanCost:
    rates = rates_of(choice, plan, store, ask=ask)
    return plan_cost(plan, store, stores(request.store), rates, pools_of(choice, plan))


def _cost_lines(cost: PlanCost, plan: Plan, request: Request) -> list[str]:
    bound = [bound_line(cost, request)] if request.budget is not None and cost.runs else []
    return [*cost_lines(cost, tables.names_of(plan)), *bound]


def _affordable(plan: Plan, store: Store, choice: ExecutorChoice, request: Request) -> Plan:
    """The plan with its runs' shares of the budget. Raises SweepError for what is too dear, or not wanted so dear."""
    cost = _cost(plan, store, choice, request, ask=True)
    for line in _cost_lines(cost, plan, request):
        terminal.message(line)
    refuse_above(cost, request)
    confirm(cost, request, on_terminal=sys.stdin.isatty() and sys.stderr.isatty())
    return with_shares(plan, cost, request)


def _execute(
    plan: Plan,
    store: Store,
    choice: ExecutorChoice,
    preflight: Preflight,
    request: Request,
    warm: MixedWorkers | None,
) -> None:
    ledger = Ledger(store, plan.sweep)
    at_home = choice.type == "local"
    if not at_home:  # before anything is asked of anybody else
        if not _asked(preflight, plan, validator_at_hand(open_store(request.store))) and not request.force:
            raise SweepError("Nothing was started. --force sends the sweep without Axolotl's word on it.")
        preflight.refuse_blocked()
        plan = _affordable(plan, store, choice, request)
    executor = executor_for(choice, plan, store, ledger, warm)
    starts_now = at_home and not preflight.unasked([planned.run.experiment for planned in plan.pending])
    if at_home:
        _asked(preflight, plan, warm or validator_at_hand(store), saying=STARTING)
        preflight.refuse_blocked()
    preflight.show_rest(terminal.messages())
    plan = with_sweep_objects(plan, store)
    _make_folders(plan, store)
    ledger.open(plan, _command())
    if starts_now and not (warm and warm.is_up):
        terminal.message(STARTING)
    with Progress(plan, store) as progress:
        executor.execute(plan, progress.update)


def _make_folders(plan: Plan, store: Store) -> None:
    try:
        store.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SweepError(f"The store {store.root} cannot be made: {error.strerror}.") from error
    for planned in plan.pending:
        _prepare_folder(store, planned)


def _prepare_folder(store: Store, planned: PlannedRun) -> None:
    """The run's inputs kept, and its folder with what was asked."""
    run = planned.run
    for found in run.inputs:
        if found.kind is not InputKind.HUB:
            assert found.identity is not None
            _how_to_keep(found)(Path(found.text), found.identity, store.root / staged_name(found))
    folder = store.folder(StepKind.TRAIN, run.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.removed.unlink(missing_ok=True)  # somebody wants it again
    if not folder.identity.exists():
        write_atomically(folder.identity, json.dumps(_identity(run), indent=1))


def _how_to_keep(found: Input) -> Callable[[Path, str, Path], None]:
    if found.kind is InputKind.CHECKPOINT:
        return keep_checkpoint
    return keep_folder if found.kind is InputKind.FOLDER and found.at == ADAPTER else keep


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
        **({"from": _start(experiment.start)} if experiment.start else {}),
    }


def _start(start: Start) -> dict[str, object]:
    return {"run": start.run, "step": start.step, "identity": start.identity}


def _fallback(gpu: Gpu) -> dict[str, object]:
    return {"fallback": list(gpu.fallback)} if gpu.fallback else {}


def _results(runs: Sequence[Run], rows: Sequence[Row], failed: Mapping[str, str]) -> list[RunResult]:
    """`failed`: run key -> what went wrong with what comes after it."""
    by_key = {row.key: row for row in rows}
    return [
        RunResult(
            run.key,
            row.status is RunStatus.SUCCEEDED and run.key not in failed,
            row.best,
            row.message or failed.get(run.key, ""),
        )
        for run in runs
        for row in [by_key[run.key]]
    ]


def _prepared(run: Run, store: Store) -> RunResult:
    """Of a run of which only the dataset was asked for."""
    there = store.manifest(run.data_key).exists()
    return RunResult(run.key, there, None, "" if there else f"its dataset {run.data_key} was not prepared")


def _command() -> str:
    return shlex.join(["axosweep", *sys.argv[1:]])
