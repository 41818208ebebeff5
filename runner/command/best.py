"""`axosweep best`: the best run, its config and its files."""

from __future__ import annotations

from collections.abc import Sequence

from runner.command.compare import add_selection, facts_of, metric_of, sweeps_named
from runner.compare.best import best_of, show_best, winner
from runner.compare.ranking import rows_from
from runner.compare.select import conditions, select
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.store.stores import stores


def parser() -> VerbParser:
    verb = VerbParser("best", description="The best run, its config and its files.")
    verb.add("what", nargs="*", metavar="SWEEP", names=[Names.SWEEP], help="sweeps; the newest by default")
    add_selection(verb)
    verb.add_json()
    config = "write its config to this file, for Axolotl and for base=FILE"
    verb.add("--write", metavar="FILE", names=[Names.FILE], help=config)
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0; SweepError when no run is the best, or several are."""
    args = parser().read(words)
    found, _ = sweeps_named(stores(args.store), args.what, every=args.all)
    facts = select(facts_of(found), conditions(args.where))
    metric = metric_of(args, facts)
    best = best_of(winner(rows_from(facts, metric), metric), metric, args.write, args.store)
    if args.json:
        print_json(best)
    else:
        show_best(best)
    return 0
