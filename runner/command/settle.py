"""`axosweep settle`: further seeds for a sweep's best settings, until one is shown to be better than all others, or
until they differ too little to matter."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from runner.command.budget_word import BUDGET, with_budget
from runner.compare.source import facts_of_sweep
from runner.console import terminal
from runner.console.parser import Names, VerbParser, count
from runner.console.print_json import print_json
from runner.errors import ExitCode, SweepError
from runner.store.finding import FoundSweep, sweep_in
from runner.store.ledger import Ledger
from runner.store.stores import is_mirror, stores

if TYPE_CHECKING:
    from runner.settle.log import Settling

LOOKS, WORTH, MAX_SEEDS = 4, 0.005, 8
LEAST_SEEDS = 3
"""With fewer, two settings never show how much seeds differ."""


def parser() -> VerbParser:
    verb = VerbParser(
        "settle",
        description="Run further seeds of the best settings of a sweep. It ends when one setting is shown to be better "
        "than all others, when they differ too little to matter, or when the looks, the seeds or the budget are used "
        "up. The runs are added to the sweep. If it was stopped, the same command continues it.",
        more="A sweep and budget=DOLLARS are expected.",
    )
    words = "a sweep's id (the newest by default); on Modal, the most dollars for all further runs"
    verb.add("words", nargs="*", metavar="SWEEP|budget=DOLLARS", names=[Names.SWEEP], help=words)
    verb.add_argument("--worth", type=_share, metavar="PERCENT",
                      help="the least difference that matters; 0.5%% of the best loss by default")  # fmt: skip
    verb.add_argument("--looks", type=count, metavar="K", help=f"the most looks at the results; {LOOKS} by default")
    verb.add_argument("--max-seeds", type=count, metavar="N", help=f"most seeds of a setting; {MAX_SEEDS} by default")
    verb.add_argument("--again", action="store_true", help="start over, when it has ended or with other values")
    verb.add_argument("--plan", action="store_true", help="show the next runs and what they cost; starts nothing")
    verb.add_argument("--yes", action="store_true", help="do not ask on Modal, even above confirm_above dollars")
    verb.add_store()
    verb.add_json()
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0 if it is settled, 1 if a run failed, 3 if it is not settled. Raises SweepError before anything
    starts."""
    from runner.settle.rounds import alone  # imported late: completion reads only the flags

    args = parser().read(words)
    name, budget = _words(args.words)
    found = sweep_in(stores(args.store), name)
    if budget is not None and not is_mirror(found.store):
        raise SweepError(
            f"{BUDGET}{budget:g}: it limits the dollars spent on Modal, but {found.sweep} runs on this machine. "
            "Leave it out; --max-seeds limits the runs."
        )
    if args.plan:
        return _plan(found, args)
    with alone(found.store, found.sweep):
        return _settle(found, args, budget)


def _plan(found: FoundSweep, args: argparse.Namespace) -> int:
    from runner.settle import words
    from runner.settle.launcher import preview
    from runner.settle.sweep import read_sweep

    settling, _ = _settling(found, args)
    now = read_sweep(found.store, found.sweep, settling.terms)
    opening = preview(now, settling)
    if args.json:
        print_json(words.settled(now, settling, opening.ending, further=opening.runs))
        return 0
    for line in words.opening_lines(now, settling, opening):
        terminal.result(line)
    return 0


def _settle(found: FoundSweep, args: argparse.Namespace, budget: float | None) -> int:
    from runner.html_report.finish import leave_report
    from runner.settle import words
    from runner.settle.launcher import SweepLauncher, preview
    from runner.settle.log import Log
    from runner.settle.rounds import Ending, settle
    from runner.settle.sweep import Sweep, read_sweep

    def show(now: Sweep, settling: Settling) -> None:
        terminal.message(words.look_line(now, settling))

    settling, new = _settling(found, args)
    now = read_sweep(found.store, found.sweep, settling.terms)
    for line in words.opening_lines(now, settling, preview(now, settling)):
        terminal.message(line)
    if new:
        Log(Ledger(found.store, found.sweep)).begin(settling)
    result = settle(found.store, found.sweep, settling, SweepLauncher(budget, args.yes), show)
    if args.json:
        print_json(words.settled(result.sweep, result.settling, result.ending, failures=result.failures))
    else:
        for line in words.closing_lines(result):
            terminal.result(line)
    terminal.message(leave_report(found.store, found.sweep))
    if result.ending is Ending.FAILED:
        return ExitCode.FAILED
    return ExitCode.SUCCEEDED if result.ending in (Ending.SEPARATED, Ending.EQUAL) else ExitCode.UNDECIDED


def _settling(found: FoundSweep, args: argparse.Namespace) -> tuple[Settling, bool]:
    """What is fixed: the newest settling of the sweep, or a new one, and whether it is new.

    Raises SweepError for other values than those that were fixed before the first look.
    """
    from runner.settle.log import Log, Settling, further_seeds
    from runner.settle.policy import Terms

    ledger = Ledger(found.store, found.sweep)
    known = Log(ledger).newest()
    given = {"looks": args.looks, "worth": args.worth, "max_seeds": args.max_seeds}
    wanted = {name: value for name, value in given.items() if value is not None}
    if known is not None:
        differs = any(getattr(known.terms, name) != value for name, value in wanted.items())
        if differs and not args.again:
            fixed = known.terms
            raise SweepError(
                f"{found.sweep} is being settled with --looks {fixed.looks} --worth {100 * fixed.worth:.3g}% "
                f"--max-seeds {fixed.max_seeds}, and these values are fixed before the first look: if they were "
                "chosen later, more than 5 % of the verdicts would be due to chance. To continue, leave them out. To "
                "start over with new looks, add --again."
            )
        if not differs and not (args.again and _has_ended(found, known)):
            return known, False
    terms = Terms(**{"looks": LOOKS, "worth": WORTH, "max_seeds": MAX_SEEDS, **wanted})
    if terms.max_seeds < LEAST_SEEDS:
        raise SweepError(
            f"--max-seeds {terms.max_seeds}: the difference between seeds can only be measured with at least "
            f"{LEAST_SEEDS} seeds of two settings. Write --max-seeds {LEAST_SEEDS} or more."
        )
    seeds = [run.config.get("seed") for run in facts_of_sweep(found.store, found.sweep)]
    used = [seed for seed in seeds if isinstance(seed, int)]
    return Settling(terms, further_seeds(used, terms.max_seeds)), True


def _has_ended(found: FoundSweep, known: Settling) -> bool:
    """Whether it can never go on with what was fixed: it has ended, or no contender may have a further seed."""
    from runner.settle.rounds import next_round
    from runner.settle.sweep import read_sweep

    if known.has_ended or known.open_round:
        return known.has_ended
    return not next_round(read_sweep(found.store, found.sweep, known.terms), known, len(known.looks))


def _words(words: Sequence[str]) -> tuple[str | None, float | None]:
    """The sweep, and the dollars. Raises SweepError for more words."""
    names, budget = with_budget("settle", words)
    if len(names) > 1:
        raise SweepError(f"settle takes one sweep and one {BUDGET}DOLLARS; found {' '.join(words)}.")
    if any("=" in name for name in names):
        raise SweepError(
            f"{names[0]}: settle repeats the runs of a sweep as they are, with other seeds, so it takes no override "
            f"but {BUDGET}DOLLARS."
        )
    return (names[0] if names else None), budget


def _share(text: str) -> float:
    """`0.5%` as a share."""
    with contextlib.suppress(ValueError):
        if text.endswith("%") and 0 < (value := float(text.removesuffix("%"))) < 100:
            return round(value / 100, 12)
    raise argparse.ArgumentTypeError(f"{text}: a percentage is expected, such as 0.5%")
