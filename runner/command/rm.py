"""`axosweep rm` and `axosweep gc`: show what would be freed, ask, free it. Nothing that a kept run needs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from modal_app.store.layout import Store
from runner.compare.table import Column, fitted, table
from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.console.question import confirm, somebody_is_here
from runner.console.transfer import size_text
from runner.errors import SweepError
from runner.files.garbage import garbage, old_downloads, stale_mirror
from runner.files.removal import Choice, Doomed, Removal, Spared, age_s, checkpoints_to_remove, runs_to_remove
from runner.files.removing import busy_here, remove_here
from runner.files.run_files import Files, LocalFiles
from runner.files.stock import Stock, inputs_needed, take_stock
from runner.store.finding import runs_in
from runner.store.stores import MIRRORS, STORE_HELP, is_mirror, open_store, stores


@dataclass(frozen=True, slots=True)
class _Place:
    """A store, wherever it is, and how something is removed from it."""

    store: Store
    files: Files
    busy: Callable[[Stock], Callable[[str], str]]
    remove: Callable[[Removal], Removal]


def rm_verb(words: Sequence[str]) -> int:
    parser = _parser("rm", "Remove runs: what they have made, not what was asked.")
    parser.add_argument("what", nargs="*", help="runs, or sweeps: their runs that no other sweep has")
    parser.add_argument("--checkpoints", action="store_true", help="only the checkpoints, of finished runs")
    asked = parser.read(words)
    before = None if asked.older_than is None else time.time() - age_s(asked.older_than)
    if not asked.what and before is None and not asked.checkpoints:
        raise SweepError("What is to be removed? Name runs or sweeps, or say --older-than 30d, or --checkpoints.")
    choices = (
        _choices(asked.what, asked.store, before) if asked.what else {_root(asked): Choice(every=True, before=before)}
    )

    def decide(place: _Place) -> Removal:
        stock, choice = take_stock(place.files), choices[place.store]
        removal = (checkpoints_to_remove if asked.checkpoints else runs_to_remove)(stock, choice, place.busy(stock))
        named = [one for one in removal.spared if one.key in choice.runs]
        if named:
            raise SweepError(_refusal(named))
        return removal

    places = [_place(store, choice.runs | choice.sweeps) for store, choice in choices.items()]
    return _carry_out(places, decide, asked)


def _refusal(named: Sequence[Spared]) -> str:
    if len(named) == 1:
        return f"Nothing was removed. {named[0].key} has to stay: {named[0].why}."
    told = "\n".join(f"  {one.key}: {one.why}" for one in named)
    return f"Nothing was removed. These have to stay:\n{told}"


def gc_verb(words: Sequence[str]) -> int:
    about = "Remove what nothing refers to any more: datasets and inputs of no run, cut-off checkpoints, dead caches."
    asked = _parser("gc", about).read(words)
    before = None if asked.older_than is None else time.time() - age_s(asked.older_than)

    def decide(place: _Place) -> Removal:
        stock = take_stock(place.files)
        if is_mirror(place.store) and isinstance(place.files, LocalFiles):
            stale = stale_mirror(stock, before=before)
            fetched = old_downloads(place.files.below("cache"), before=before, now=time.time())
            return Removal((*stale.doomed, *fetched.doomed))
        return garbage(stock, inputs_needed(place.files, stock), place.busy(stock), before=before, now=time.time())

    places = [_place(_root(asked))]
    if not asked.modal:
        places += [_here(store) for store in stores(asked.store) if is_mirror(store)]
    return _carry_out(places, decide, asked)


def _parser(verb: str, about: str) -> VerbParser:
    parser = VerbParser(verb, description=about)
    parser.add_argument("--older-than", metavar="AGE", help="only what was last written before: 12h, 30d, 2w")
    parser.add_argument("--modal", action="store_true", help="on Modal's Volumes, where nothing is named")
    parser.add_argument("--dry-run", action="store_true", help="show it, remove nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--store", help=STORE_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _root(asked: argparse.Namespace) -> Store:
    local = open_store(asked.store)
    return Store(local.root / MIRRORS[0]) if asked.modal else local


def _choices(names: Sequence[str], store_asked: str | None, before: float | None) -> dict[Store, Choice]:
    """What the names mean, by store. Raises SweepError for one that means nothing."""
    runs: dict[Store, set[str]] = {}
    sweeps: dict[Store, set[str]] = {}
    for name in names:
        store, found, sweep = runs_in(stores(store_asked), name)
        runs.setdefault(store, set()).update(run.key for run in found if sweep is None)
        sweeps.setdefault(store, set()).update([sweep] if sweep is not None else [])
    return {store: Choice(frozenset(keys), frozenset(sweeps[store]), before=before) for store, keys in runs.items()}


def _place(store: Store, named: frozenset[str] = frozenset()) -> _Place:
    """Of a mirror, where its runs really are, those that are `named` above all. Modal is imported for that only."""
    if store.root.name not in MIRRORS:
        return _here(store)
    from runner.files.modal_removal import removal_for

    there = removal_for(store, named)

    def busy(_: Stock) -> Callable[[str], str]:
        there.look()
        return there.at_work

    return _Place(store, there.files, busy, there.remove)


def _here(store: Store) -> _Place:
    return _Place(store, LocalFiles(store), lambda stock: busy_here(store, stock), lambda one: remove_here(store, one))


def _carry_out(places: Sequence[_Place], decide: Callable[[_Place], Removal], asked: argparse.Namespace) -> int:
    removals = [decide(place) for place in places]
    doomed = [one for removal in removals for one in removal.doomed]
    if not asked.json:
        _show(removals, asking=asked.dry_run or not asked.yes)
    if doomed and not asked.dry_run and not asked.yes:
        _confirm(doomed)
        removals = [_still(removal, decide(place)) for place, removal in zip(places, removals, strict=True)]
    done = removals
    if not asked.dry_run:
        done = [place.remove(removal) for place, removal in zip(places, removals, strict=True)]
    spared = [one for removal in (*removals, *done) for one in removal.spared]
    freed = [] if asked.dry_run else [one for removal in done for one in removal.doomed]
    if asked.json:
        told = {"doomed": [asdict(one) for one in doomed], "spared": [asdict(one) for one in dict.fromkeys(spared)]}
        print_json({**told, "bytes": sum(one.bytes for one in doomed), "freed": sum(one.bytes for one in freed)})
    elif doomed and not asked.dry_run:
        lines = [f"Kept: {one.key}: {one.why}" for removal in done for one in removal.spared]
        lines.append(f"{size_text(sum(one.bytes for one in freed))} freed.")
        terminal.result("\n".join(lines))
    return 0


def _show(removals: Sequence[Removal], *, asking: bool) -> None:
    console = terminal.results()
    doomed = [one for removal in removals for one in removal.doomed]
    if doomed:
        columns = [
            Column("what", tuple(one.kind for one in doomed), left=True),
            Column("", tuple(one.key for one in doomed), left=True),
            Column("size", tuple(size_text(one.bytes) for one in doomed)),
            Column("about it", tuple(one.note for one in doomed), 1, left=True),
        ]
        console.print(table(fitted(columns, console.width)[0], "", [False] * len(doomed)), crop=False)
    for one in (one for removal in removals for one in removal.spared):
        terminal.say(console, f"Kept: {one.key}: {one.why}")
    if not doomed:
        console.print("There is nothing to remove.")
    elif asking:
        terminal.say(console, f"{size_text(sum(one.bytes for one in doomed))} would be freed.")


def _confirm(doomed: Sequence[Doomed]) -> None:
    """Raises SweepError without a yes."""
    confirm(
        f"Remove {'this' if len(doomed) == 1 else f'these {len(doomed)}'}?",
        alone="Nothing was removed: nobody is here to be asked. Add --yes, or --dry-run to only look.",
        refused="Nothing was removed.",
        on_terminal=somebody_is_here(),
    )


def _still(agreed: Removal, now: Removal) -> Removal:
    """What was agreed to and may still go: whoever was asked may have thought about it for an hour."""
    same = {(one.kind, one.key): one for one in agreed.doomed}
    return Removal(tuple(one for one in now.doomed if (one.kind, one.key) in same), now.spared)
