"""`axosweep best`: the best run, its config and its files."""

from __future__ import annotations

from collections.abc import Sequence

from runner.command.compare import add_selection, facts_of, metric_of, sweeps_named
from runner.compare.best import best_of, show_best, winner
from runner.compare.decision import cheapest_of_best, undecided
from runner.compare.ranking import rows_from
from runner.compare.row_losses import verdicts_of
from runner.compare.select import conditions, select
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.errors import ExitCode
from runner.store.stores import stores


def parser() -> VerbParser:
    verb = VerbParser("best", description="The best run, its config and its files.")
    verb.add("what", nargs="*", metavar="SWEEP", names=[Names.SWEEP], help="sweeps; the newest by default")
    add_selection(verb)
    verb.add_json()
    config = "write its config to this file, for Axolotl and for base=FILE"
    cheapest = "the cheapest of the settings that cannot be told apart from the best one"
    verb.add_argument("--cheapest-of-best", action="store_true", help=cheapest)
    decided = "exit code 3 unless one setting is shown to be better than all others"
    verb.add_argument("--decided", action="store_true", help=decided)
    verb.add("--write", metavar="FILE", names=[Names.FILE], help=config)
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0; with --decided, 3 unless one setting is shown to be the best. SweepError when no run is the best, or
    several are."""
    args = parser().read(words)
    found, _ = sweeps_named(stores(args.store), args.what, every=args.all)
    facts = select(facts_of(found), conditions(args.where))
    metric = metric_of(args, facts)
    rows = rows_from(facts, metric)
    run = winner(rows, metric)
    verdict = next((one for one in verdicts_of(rows, metric) if one.eval_fingerprint == run.eval_fingerprint), None)
    if args.cheapest_of_best:
        run = cheapest_of_best(run, rows, verdict, metric)
    why_not = undecided(run, rows, verdict, metric)
    best = best_of(
        run, metric, args.write, args.store, cheapest=args.cheapest_of_best, verdict=verdict, undecided=why_not
    )
    if args.json:
        print_json(best)
    else:
        show_best(best)
    if args.decided and why_not:
        terminal.message(f"Not decided: {why_not}", style="yellow")
        return ExitCode.UNDECIDED
    return ExitCode.SUCCEEDED
