"""The line: experiments -> resolved -> identified -> planned -> priced -> executed -> compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from modal_app.store.layout import Store
from modal_app.store.state import is_done
from modal_app.store.step import StepKind
from runner.compare.ranking import Row, compare_sweep
from runner.console import terminal
from runner.console.interrupts import terminate_as_interrupt
from runner.errors import SweepError
from runner.executors.choose import preloaded_workers, validator_at_hand
from runner.executors.mixed_workers import MixedWorkers
from runner.follow_up.stage_steps import failed_stages
from runner.html_report.finish import leave_report
from runner.keys.inputs import how_to_pin
from runner.launch.budget import left_line
from runner.launch.execute import execute, record_request
from runner.launch.identify import identify, resolve
from runner.launch.notices import Notifier, notifier_of
from runner.launch.plan import plan
from runner.launch.plan_notes import plan_notes
from runner.launch.plan_output import show_launch, show_refused
from runner.launch.price import price
from runner.launch.schema import ask_schema, refuse_blocked
from runner.launch.types import Launch
from runner.preflight.schema import Validator
from runner.request import Action, Request
from runner.show import tables
from runner.store.run_state import RunStatus
from runner.store.stores import check_writable, while_it_exists
from runner.types import Experiment, Plan, Run, RunResult
from runner.wandb.verdict import add_verdict


def launch_sweep(experiments: Sequence[Experiment], request: Request) -> list[RunResult]:
    """Plan the experiments, print what would run, and (unless only a plan is wanted) run it and print its results.

    Returns one result per experiment, in order; an experiment that occurs twice has the same result twice.
    Raises SweepError before anything starts; a run that fails is a result, not an error.
    """
    if request.action is Action.PLAN:
        return _show_plan(experiments, request)
    return run_sweep(experiments, request, show_results)


@terminate_as_interrupt()
def _show_plan(experiments: Sequence[Experiment], request: Request) -> list[RunResult]:
    launch = resolve(experiments, request)
    if request.json and launch.preflight.blocked:
        show_refused(launch)
    launch = _planned(launch, None)
    if not request.json:
        tables.show_plan(launch.plan, terminal.results(), request.left_out)
    notes = plan_notes(launch)
    _say_notes(notes)
    show_launch(price(launch), notes)
    return []


def _say_notes(notes: Sequence[str]) -> None:
    for note in notes:
        terminal.message(f"note: {note}", style="yellow")


Finish = Callable[[Launch, Sequence[Row]], None]
"""What is done with a sweep that is over, and with its rows; there are none if only datasets were requested."""


@terminate_as_interrupt()
def run_sweep(experiments: Sequence[Experiment], request: Request, finish: Finish) -> list[RunResult]:
    """Plan the experiments, print what would run, and run it. Returns and raises like `launch_sweep`.

    Of a round of a search, neither the plan nor results are printed, and `finish` is not called: both are for the
    search as a whole, when it is over.
    """
    launch = resolve(experiments, request)
    check_writable(launch.store)  # before seconds of imports
    if request.round is not None and request.round.closing:
        return _conclude(plan(identify(launch)), finish)
    with while_it_exists(launch.store), preloaded_workers(launch.executor, launch.experiments, launch.store) as workers:
        launch = _planned(launch, workers)
        if request.round is None:
            # With --json, stdout has only the rows, which are printed at the end.
            console = terminal.messages() if request.json else terminal.results()
            tables.show_plan(launch.plan, console, request.left_out)
        _say_notes(plan_notes(launch))
        _check_resolved(launch.plan)
        if launch.plan.has_work:
            _refuse_blocked(launch, workers)
            _check_schema_known(launch)
            notifier = execute(price(launch), workers)
        else:
            record_request(launch)
            notifier = notifier_of(launch)
        if request.round is not None:
            notifier.look(at_once=True)
            return _results(launch, _rows(launch))
        return _finished(launch, finish, notifier)


def _conclude(launch: Launch, finish: Finish) -> list[RunResult]:
    """The end of a search: nothing is run any more."""
    record_request(launch)
    return _finished(launch, finish, notifier_of(launch))


def _finished(launch: Launch, finish: Finish, notifier: Notifier) -> list[RunResult]:
    rows = _rows(launch)
    finish(launch, rows)
    if text := add_verdict(launch.plan, launch.store, rows):
        terminal.message(text, style="yellow")
    notifier.finish(rows)  # at the end: what is printed does not wait for it
    return _results(launch, rows)


def _rows(launch: Launch) -> Sequence[Row]:
    return compare_sweep(launch.store, launch.plan.sweep) if _trains(launch) else []


def _trains(launch: Launch) -> bool:
    return any(planned.trains for planned in launch.plan.runs)


def _planned(launch: Launch, workers: MixedWorkers | None) -> Launch:
    """Refuse the launch if a problem is known already; otherwise plan it, while the workers are preloaded."""
    _refuse_blocked(launch, workers)
    if workers is not None:
        workers.warm_up()
    return plan(identify(launch))


def _refuse_blocked(launch: Launch, workers: MixedWorkers | None) -> None:
    def validator() -> Validator | None:
        return workers or validator_at_hand(launch.local_store)

    if launch.preflight.blocked:
        launch.preflight.refuse(terminal.messages(), validator)


def _check_resolved(plan: Plan) -> None:
    """Raises SweepError for hub names whose commit could not be resolved."""
    if text := unresolved_text(plan):
        raise SweepError(f"Nothing was started: {text}")


def unresolved_text(plan: Plan) -> str:
    """The hub names whose commit could not be resolved, and how to pin them; empty if there are none."""
    if not plan.unresolved:
        return ""
    lines = [f"  {one.at}={one.text}: {one.problem}. Pin it: {how_to_pin(one)}" for one in plan.unresolved]
    return "\n".join(["the commits of these names are unknown, so it is unknown what would be trained.", *lines])


def _check_schema_known(launch: Launch) -> None:
    """Before anything is rented or confirmed. On this machine, the trainer checks it later."""
    if launch.on_this_machine:
        return
    if not ask_schema(launch, validator_at_hand(launch.local_store)) and not launch.request.force:
        raise SweepError("Nothing was started. --force launches the sweep without this check.")
    refuse_blocked(launch)


def show_results(launch: Launch, rows: Sequence[Row]) -> None:
    """The table of a sweep that is over, and its report. If only datasets were requested, its JSON has no runs."""
    if rows or launch.request.json:
        tables.show_rows(rows, launch.store, launch.plan.sweep, as_json=launch.request.json)
    if not rows:
        return
    console = terminal.messages() if launch.request.json else terminal.results()
    if left := left_line(launch.plan, launch.request, rows):
        terminal.say(console, left)
    terminal.say(console, leave_report(launch.store, launch.plan.sweep))
    names = tables.names_of(launch.plan)
    for key, why in failed_stages(launch.plan, launch.store).items():
        terminal.message(f"{names[key]}: {why}")


def _results(launch: Launch, rows: Sequence[Row]) -> list[RunResult]:
    if not rows:
        return [_prepared(run, launch.store) for run in launch.runs]
    failed = failed_stages(launch.plan, launch.store)
    by_key = {row.key: row for row in rows}
    return [_result(by_key[run.key], failed) for run in launch.runs]


def _result(row: Row, failed: Mapping[str, str]) -> RunResult:
    """`failed`: run key -> what went wrong with its follow-up steps."""
    succeeded = row.status is RunStatus.SUCCEEDED and row.key not in failed
    message = row.message or failed.get(row.key, "")
    return RunResult(row.key, succeeded, row.best, message, row.status is RunStatus.AT_RUNG)


def _prepared(run: Run, store: Store) -> RunResult:
    """The result of a run of which only the dataset was requested."""
    exists = is_done(store.folder(StepKind.PREPROCESS, run.data_key))
    return RunResult(run.key, exists, None, "" if exists else f"its dataset {run.data_key} was not prepared")
