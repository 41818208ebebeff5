"""What `axosweep plan` prints of a launch besides its runs: schema, memory, price, a --diff, the files of --write."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from runner.console import terminal
from runner.console.print_json import print_json
from runner.errors import PlanRefused
from runner.executors.choose import missing_gpus, validator_at_hand
from runner.keys.inputs import how_to_pin
from runner.launch import plan_inputs
from runner.launch.budget import over_budget
from runner.launch.plain_configs import write_configs
from runner.launch.plan_diff import diff_lines, plan_diff
from runner.launch.price import container_lines, further_lines, price_lines
from runner.launch.printed_plan import PrintedPlan, printed_plan, requested_runs
from runner.launch.schema import ask_schema, refusal_of
from runner.launch.types import Launch
from runner.store.stores import stores


def show_launch(launch: Launch, notes: Sequence[str] = ()) -> None:
    """Print all that is known of a priced launch. Then raise PlanRefused if something keeps it from starting.
    `notes`: those that have been printed; the JSON has them, too.

    Raises SweepError for a --diff with a sweep that does not exist, before any file is written, and for files that
    --write would overwrite.
    """
    assert launch.cost is not None
    plan, request, preflight = launch.plan, launch.request, launch.preflight
    schema_asked = ask_schema(launch, validator_at_hand(launch.local_store))
    missing = missing_gpus(launch.executor, plan)
    refusal = refusal_of(launch) or over_budget(launch.cost, request)
    ready = not (refusal or plan.unresolved or missing)
    known = stores(request.store)
    diff = plan_diff(plan, known, request.diff, trainer=launch.trainer) if request.diff else None
    written = write_configs(plan, request.write) if request.write else []
    if request.json:
        found = printed_plan(
            launch,
            sys.argv[1:],
            schema_asked=schema_asked,
            notes=[*notes, missing] if missing else notes,
            refused=refusal,
            diff=diff,
            written=written,
        )
        print_json(found)
    else:
        console = terminal.results()
        preflight.show_rest(console)
        about = plan_inputs.lines(plan, launch.store, sys.argv[1:], ready=ready)
        files = [f"written {file}" for file in written]
        for line in (
            *preflight.memory_lines(),
            *price_lines(launch),
            *further_lines(launch),
            *container_lines(launch),
            *(diff_lines(diff) if diff else ()),
            *files,
            *about,
        ):
            terminal.say(console, line)
    if missing:
        terminal.message(f"note: {missing}", style="yellow")
    if plan.unresolved:
        pins = " ".join(dict.fromkeys(how_to_pin(one) for one in plan.unresolved))
        note = f"note: a launch is refused while a name is unresolved. Wait until the hub answers, or pin it: {pins}"
        terminal.message(note, style="yellow")
    if refusal:  # after everything else is printed
        raise PlanRefused(refusal)


def show_refused(launch: Launch) -> NoReturn:
    """Print in JSON what is wrong with runs that cannot be identified, since their values are wrong.

    Raises PlanRefused.
    """
    schema_asked = ask_schema(launch, validator_at_hand(launch.local_store), launch.experiments)
    refusal = launch.preflight.refusal()
    found = launch.preflight.printed(schema_asked=schema_asked)
    runs, left_out = requested_runs(launch.experiments), launch.request.left_out
    print_json(PrintedPlan(launch.request.name, runs, refusal, found, left_out=left_out))
    raise PlanRefused(refusal)
