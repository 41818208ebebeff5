"""`axosweep compare`: runs side by side; two runs: what differs, where one is better, and both curves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modal_app.store.layout import Store
from runner.compare import pair as compare_pair
from runner.compare.comparison import SweepSelection, comparison, comparison_without_store
from runner.compare.groups import Group, groups_over, split_by_held_out
from runner.compare.measured import is_of_a_task
from runner.compare.metric_names import logged_name
from runner.compare.packed import packed_notes
from runner.compare.ranking import OBJECTIVE, Metric, Row, higher_is_better, rows_from
from runner.compare.row_losses import unjudged_notes, verdicts_of
from runner.compare.select import conditions, in_order, select
from runner.compare.show import Form, show
from runner.compare.show_receipt import receipt_markdown, show_receipt
from runner.compare.source import RunFacts, facts_of_sweep, once_each
from runner.console import terminal
from runner.console.parser import Names, VerbParser
from runner.console.print_json import print_json
from runner.errors import SweepError
from runner.files.held_out_answers import with_answers
from runner.store.finding import runs_in, sweep_in
from runner.store.ledger import Ledger, last_activity, sweep_ids
from runner.store.stores import stores

STORE, WANDB = "store", "wandb"
"""Where rows can come from."""
KEEP_THE_ROWS = (
    "Runs that differ only in {over} are evaluated on different held-out rows, so they have no mean: with "
    "data.seed=null, a seed also draws those rows. With data.seed=42, they are the same for every seed."
)


def parser() -> VerbParser:
    verb = VerbParser(
        "compare",
        description="Runs side by side, with the parameters that differ. For two runs, it also shows where one is "
        "better, and both curves.",
    )
    named = "sweeps or runs; the newest sweep by default"
    verb.add("what", nargs="*", metavar="SWEEP|RUN", names=[Names.RUN], help=named)
    add_selection(verb)
    verb.add_argument(
        "--over", nargs="+", action="extend", default=[], metavar="KEY", help="show means over this key, such as seed"
    )
    verb.add_argument(
        "--receipt", action="store_true", help="what the seconds of each run and each container were used for"
    )
    verb.add_argument("--sort", metavar="KEY", help="a column, a parameter or the metric; the metric by default")
    verb.add_argument("--reverse", action="store_true", help="sort the other way around")
    verb.add_argument(
        "--from",
        dest="source",
        choices=(STORE, WANDB),
        default=STORE,
        help="where rows come from; the store by default",
    )
    verb.add_argument("--project", help="with --from wandb: the W&B project; by default that of the runs")
    verb.add_argument("--entity", help="with --from wandb: the owner of the project")
    forms = verb.add_mutually_exclusive_group()
    for form in (Form.JSON, Form.CSV, Form.MARKDOWN):
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=f"print {form.name}")
    verb.set_defaults(form=Form.TABLE)
    return verb


def main(words: Sequence[str]) -> int:
    """Exit code 0; SweepError for a run or sweep that does not exist."""
    args = parser().read(words)
    if args.receipt and args.over:
        raise SweepError("--receipt is of each run, so it has no mean: leave out --over.")
    found = _from_wandb(args) if args.source == WANDB else _from_store(args)
    facts = select(found.facts, conditions(args.where))
    metric = metric_of(args, facts)
    if (
        found.runs_named
        and len(args.what) == len(facts) == 2
        and not (args.over or args.receipt)
        and args.form in (Form.TABLE, Form.JSON)
    ):
        _compare_two(facts, args.what, metric, args.form)
        return 0
    rows = rows_from(facts, metric)
    verdicts = verdicts_of(rows, metric)
    if args.sort:
        rows = in_order(rows, args.sort, reverse=args.reverse, metric=metric.name)
    elif args.reverse:
        rows = in_order(rows, "final", reverse=not metric.maximize)  # the worst first
    groups, notes = _grouped(args.over, facts, rows, metric)
    notes += [*found.notes, *packed_notes(rows, metric), *unjudged_notes(rows, verdicts, metric)]
    if found.stored:
        table = comparison(rows, found.stored, metric, args.over, groups, notes, verdicts)
    else:
        table = comparison_without_store(rows, found.sweeps, metric, args.over, groups, notes)
    if args.receipt and args.form is Form.TABLE:
        show_receipt(table, terminal.results())
    elif args.receipt and args.form is Form.MARKDOWN:
        terminal.write(f"{receipt_markdown(table)}\n")
    else:  # JSON and CSV have the receipts in any case
        show(table, found.stored, args.form)
    return 0


def add_selection(parser: VerbParser) -> None:
    """The flags that select runs, and the metric to compare them by."""
    parser.add_argument("--all", action="store_true", help="every sweep")
    parser.add_argument(
        "--metric", default=OBJECTIVE, help="a metric that was logged or measured; eval_loss by default"
    )
    parser.add_argument("--maximize", action="store_true", help="higher is better")
    parser.add_argument("--where", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="only these runs")
    parser.add_store()


def metric_of(args: argparse.Namespace, facts: Sequence[RunFacts]) -> Metric:
    """The metric of a task has its own direction: higher or lower is better."""
    name = logged_name(args.metric)
    return Metric(name, args.maximize or higher_is_better(name, facts))


@dataclass(frozen=True, slots=True)
class _Selection:
    """The runs that were named, and their facts."""

    facts: Sequence[RunFacts]
    stored: Sequence[SweepSelection] = ()
    """Empty if the source is not a store."""
    sweeps: Sequence[str] = ()
    """If the source is not a store: the sweeps that were named, not those of single runs."""
    runs_named: bool = False
    """Whether only runs were named."""
    notes: Sequence[str] = ()


def _from_store(args: argparse.Namespace) -> _Selection:
    if args.project or args.entity:
        raise SweepError("--project and --entity select a project of W&B: add --from wandb, or leave them out.")
    stored, runs_named = sweeps_named(stores(args.store), args.what, every=args.all)
    named = [one.only for one in stored]
    if runs_named and len(named) == 2 and named[0] == named[1]:
        raise SweepError(f"{' and '.join(args.what)} are one run, so there is nothing to compare. Name two runs.")
    return _Selection(facts_of(stored), stored, runs_named=runs_named)


def _from_wandb(args: argparse.Namespace) -> _Selection:
    """A word that is not in a store is the complete id of a sweep."""
    from runner.wandb import rows as compare_wandb

    known = stores(args.store)
    if not args.what and not any(sweep_ids(store) for store in known):
        raise SweepError(f"There is no sweep in {known[0].root}: for a sweep in W&B, write its complete id.")
    words: list[str] = args.what
    foreign = [word for word in words if not _is_sweep(known, word) and _run(known, word) is None]
    local = [word for word in words if word not in foreign]
    stored, runs_named = sweeps_named(known, local, every=args.all) if local or not words else ([], False)
    where: list[compare_wandb.Selection] = [
        *(compare_wandb.Selection(one.sweep, one.store, one.only) for one in stored),
        *(compare_wandb.Selection(word) for word in foreign),
    ]
    read = compare_wandb.read(where, args.project, args.entity)
    sweeps = tuple(dict.fromkeys(one.sweep for one in where if one.only is None))
    facts = once_each(read.facts)
    return _Selection(facts, sweeps=sweeps, runs_named=runs_named and not foreign, notes=read.notes)


@dataclass(frozen=True, slots=True)
class _KnownRun:
    """A run, and a sweep that requested it."""

    store: Store
    sweep: str
    key: str


def sweeps_named(known: Sequence[Store], words: Sequence[str], *, every: bool) -> tuple[list[SweepSelection], bool]:
    """The sweeps and runs that the words name; a word is first tried as a sweep. Also whether all are runs."""
    if every:
        found = [SweepSelection(store, sweep) for store in known for sweep in sweep_ids(store)]
        if words:
            raise SweepError(f"--all means every sweep: leave out {' '.join(words)}.")
        return found or [_sweep(known, None)], False
    if not words:
        return [_sweep(known, None)], False
    runs = [None if _is_sweep(known, word) else _run(known, word) for word in words]
    for word, run in zip(words, runs, strict=True):
        if run is None and not _is_sweep(known, word):
            runs_in(known, word)  # neither: its refusal names both
    selections = [
        _sweep(known, word) if run is None else SweepSelection(run.store, run.sweep, frozenset({run.key}))
        for word, run in zip(words, runs, strict=True)
    ]
    return selections, all(runs)


def _sweep(known: Sequence[Store], word: str | None) -> SweepSelection:
    found = sweep_in(known, word)
    return SweepSelection(found.store, found.sweep)


def _is_sweep(known: Sequence[Store], word: str) -> bool:
    return any(sweep.startswith(word) for store in known for sweep in sweep_ids(store))


def _run(known: Sequence[Store], word: str) -> _KnownRun | None:
    """The run whose key begins with `word`, in the sweep that requested it last; None when there is none.

    Raises SweepError when several fit.
    """
    fits = [
        _KnownRun(store, sweep, run.key)
        for store in known
        for sweep in sweep_ids(store)
        for run in Ledger(store, sweep).plan().runs
        if run.key.startswith(word)
    ]
    keys = {one.key for one in fits}
    if len(keys) > 1:
        raise SweepError(
            f"{word} is the beginning of several runs' keys: {', '.join(sorted(keys))}. Write more of the key."
        )
    return max(fits, key=lambda one: last_activity(one.store, one.sweep), default=None)


def facts_of(selections: Sequence[SweepSelection]) -> list[RunFacts]:
    return once_each(one for each in selections for one in facts_of_sweep(each.store, each.sweep, each.only))


def _compare_two(facts: Sequence[RunFacts], words: Sequence[str], metric: Metric, form: Form) -> None:
    ordered = sorted(facts, key=lambda one: not one.key.startswith(words[0]))
    pair = compare_pair.pair_of(ordered, metric)
    first, second = pair.runs
    if pair.where is not None and first.store == second.store:
        store = Store(Path(str(first.store)))
        pair = replace(pair, where=with_answers(pair.where, store, first.key, second.key))
    if form is Form.JSON:
        print_json(pair)
    else:
        compare_pair.show_pair(pair, terminal.results())


def _grouped(
    over: Sequence[str], facts: Sequence[RunFacts], rows: Sequence[Row], metric: Metric
) -> tuple[list[Group], list[str]]:
    if not over:
        return [], []
    groups = groups_over(over, facts, rows, metric)
    split = not is_of_a_task(metric.name) and split_by_held_out(over, facts)
    notes = [KEEP_THE_ROWS.format(over=", ".join(over))] if split else []
    return groups, notes
