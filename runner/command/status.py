"""`axosweep status`: the status of every sweep, or of every run of one sweep."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from modal_app.store.layout import Store
from runner.compare.ranking import compare_sweep
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.show import tables
from runner.show.status import all_sweeps
from runner.store.finding import sweep_in
from runner.store.going_on import goes_on
from runner.store.ledger import Ledger, no_sweep_text, sweep_ids
from runner.store.mirror_age import stale
from runner.store.run_state import RunStatus
from runner.store.search_note import interrupted_search
from runner.store.stores import stores


def parser() -> VerbParser:
    verb = VerbParser("status", description="The status of every sweep, or of every run of one sweep.")
    verb.add("sweep", nargs="?", names=[Names.SWEEP], help="a sweep's id, or the beginning of it")
    verb.add("--refresh", action="store_true", help="ask Modal first; otherwise, its sweeps are shown as last seen")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    known = stores(args.store)
    found = None if args.sweep is None else sweep_in(known, args.sweep)
    if found is None:
        shown = [(store, sweep) for store in known for sweep in sweep_ids(store)]
    else:
        shown = [(found.store, found.sweep)]
    old = [(store, sweep) for store, sweep in shown if stale(store, sweep)]
    if args.refresh and old:
        from runner.executors import modal_verbs

        for store, sweep in old:
            modal_verbs.look(store, sweep)
    if not shown and not args.json:
        terminal.message(no_sweep_text(known[0]))
    elif found is None:
        tables.show_sweeps(all_sweeps(*known), known[0], as_json=args.json)
    else:
        rows = compare_sweep(found.store, found.sweep)
        tables.show_rows(rows, found.store, found.sweep, as_json=args.json, judge=False)
        if further := interrupted_search(found.store, found.sweep):
            terminal.message(further.text)
        elif again := _to_continue(found.store, found.sweep, {row.status for row in rows}):
            terminal.message(again)
    for text in filter(None, (stale(store, sweep, args.store) for store, sweep in old)):
        terminal.message(text)
    return 0


def _to_continue(store: Store, sweep: str, statuses: Collection[RunStatus]) -> str:
    """The command line for a sweep whose runs have stopped before their end, and that nothing works on; otherwise
    empty."""
    ended_early = {RunStatus.STOPPED, RunStatus.LOST, RunStatus.FAILED} & set(statuses)
    command = Ledger(store, sweep).plan().command
    return f"To continue it: {command}" if command and ended_early and not goes_on(store, sweep, statuses) else ""
