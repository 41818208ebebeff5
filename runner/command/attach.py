"""`axosweep attach`: the live view of a sweep that runs on Modal, until the sweep has ended."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from modal_app.store.layout import Store
from runner.compare.ranking import compare_sweep
from runner.config.overrides import written
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.errors import ExitCode, SweepError
from runner.html_report.finish import leave_report
from runner.show import tables
from runner.show.sweep_view import SweepView
from runner.store.finding import sweep_in
from runner.store.ledger import sweep_ids
from runner.store.run_state import RunStatus
from runner.store.search_note import InterruptedSearch, interrupted_search
from runner.store.stores import open_store, store_of
from runner.wandb.verdict import add_verdict_of_tracked


def parser() -> VerbParser:
    verb = VerbParser(
        "attach",
        description="Follow a sweep on Modal, from any machine, until it has ended. If the command of a search by "
        "results (search=coordinate, search=tpe) has ended, attach continues the search; run it in the folder where "
        "the search was launched.",
    )
    known = "a sweep's id; by default the newest on Modal that this machine knows"
    verb.add("sweep", nargs="?", names=[Names.SWEEP], help=known)
    verb.add("--runs-volume", default="axosweep-runs", help="executor.modal.runs_volume of the sweep")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    return attach(args.store, args.sweep, args.runs_volume, as_json=args.json)


def attach(store_folder: str | None, sweep_name: str | None, runs_volume: str, *, as_json: bool) -> int:
    """Exit code 0 when every run has succeeded or stopped at a rung, otherwise 1. Goes on with a search whose command
    has ended. Raises SweepError when there is nothing to attach to."""
    from runner.executors import modal_notices, modal_verbs

    mirror = store_of("modal", store_folder)
    local = open_store(store_folder)
    if sweep_name is not None and not sweep_ids(mirror) and sweep_name in sweep_ids(local):
        raise SweepError(
            f"{sweep_name} runs on this machine, so there is nothing on Modal to follow. axosweep status "
            f"{sweep_name} shows it, and how to continue it."
        )
    if sweep_name is None and not sweep_ids(mirror):
        raise SweepError("This machine knows no sweep on Modal. Name one: axosweep attach SWEEP")
    known = [sweep for sweep in sweep_ids(mirror) if sweep_name is None or sweep.startswith(sweep_name)]
    sweep = sweep_in([mirror], sweep_name).sweep if known else str(sweep_name)
    view = SweepView(mirror, sweep)
    try:
        modal_verbs.attach(mirror, sweep, runs_volume, view.update)
    finally:
        view.close()
    rows = compare_sweep(mirror, sweep)
    further = interrupted_search(mirror, sweep)
    if further is not None and all(row.status in (RunStatus.SUCCEEDED, RunStatus.FAILED) for row in rows):
        return _go_on(further, local, sweep, as_json=as_json)
    tables.show_rows(rows, mirror, sweep, as_json=as_json)
    console = terminal.messages() if as_json else terminal.results()
    terminal.say(console, leave_report(mirror, sweep))
    if text := add_verdict_of_tracked(sweep, mirror, rows):
        terminal.message(text, style="yellow")
    if further is not None:
        terminal.message(further.text, style="yellow")
    for why in modal_notices.settle(mirror, sweep):
        terminal.message(f"A notice was not sent: {why}. The same command tries again.", style="yellow")
    well = all(row.status in (RunStatus.SUCCEEDED, RunStatus.AT_RUNG) for row in rows)
    return ExitCode.SUCCEEDED if well else ExitCode.FAILED


def _go_on(search: InterruptedSearch, store: Store, sweep: str, *, as_json: bool) -> int:
    """Launch the next rounds of a search, as its own command line does. None of its runs was stopped or cancelled."""
    from runner.api import application

    terminal.message(f"Going on with search={search.method}: {search.command}")
    words = shlex.split(search.command)[1:]
    more = [f"store={written(str(store.root))}", *(["json=true"] if as_json else [])]
    return application.run([*words, *more], search=sweep)
