"""What `rm` and `gc` share: show what would be freed, ask, free it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from modal_app.store.layout import Store
from runner.compare.table import Column, fitted, table
from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.console.question import confirm, somebody_is_here
from runner.console.transfer import size_text
from runner.files.removal import Doomed, Removal
from runner.files.removing import busy_here, remove_here
from runner.files.run_files import Files, LocalFiles
from runner.files.stock import Stock
from runner.store.stores import MIRRORS, open_store


@dataclass(frozen=True, slots=True)
class Place:
    """A store, wherever it is, and how something is removed from it."""

    store: Store
    files: Files
    busy: Callable[[Stock], Callable[[str], str]]
    remove: Callable[[Removal], Removal]


def add_removal(parser: VerbParser) -> None:
    parser.add("--older-than", metavar="AGE", help="only what was last written before: 12h, 30d, 2w")
    parser.add("--modal", action="store_true", help="on Modal's Volumes, where nothing is named")
    parser.add("--dry-run", action="store_true", help="show it, remove nothing")
    parser.add("--yes", action="store_true", help="do not ask")
    parser.add_store()
    parser.add_json()


def root_of(args: argparse.Namespace) -> Store:
    local = open_store(args.store)
    return Store(local.root / MIRRORS[0]) if args.modal else local


def place_of(store: Store, named: frozenset[str] = frozenset()) -> Place:
    """Of a mirror, where its runs really are, those that are `named` above all. Modal is imported for that only."""
    if store.root.name not in MIRRORS:
        return place_here(store)
    from runner.files.modal_removal import removal_for

    there = removal_for(store, named)

    def busy(_: Stock) -> Callable[[str], str]:
        there.look()
        return there.at_work

    return Place(store, there.files, busy, there.remove)


def place_here(store: Store) -> Place:
    return Place(store, LocalFiles(store), lambda stock: busy_here(store, stock), lambda one: remove_here(store, one))


def remove_after_asking(places: Sequence[Place], decide: Callable[[Place], Removal], args: argparse.Namespace) -> int:
    removals = [decide(place) for place in places]
    doomed = [one for removal in removals for one in removal.doomed]
    if not args.json:
        _show(removals, asking=args.dry_run or not args.yes)
    if doomed and not args.dry_run and not args.yes:
        _confirm(doomed)
        removals = [_still(removal, decide(place)) for place, removal in zip(places, removals, strict=True)]
    done = removals
    if not args.dry_run:
        done = [place.remove(removal) for place, removal in zip(places, removals, strict=True)]
    spared = [one for removal in (*removals, *done) for one in removal.spared]
    freed = [] if args.dry_run else [one for removal in done for one in removal.doomed]
    if args.json:
        told = {"doomed": [asdict(one) for one in doomed], "spared": [asdict(one) for one in dict.fromkeys(spared)]}
        print_json({**told, "bytes": sum(one.bytes for one in doomed), "freed": sum(one.bytes for one in freed)})
    elif doomed and not args.dry_run:
        lines = [f"Kept: {one.key}: {one.why}" for removal in done for one in removal.spared]
        lines.append(f"{size_text(sum(one.bytes for one in freed))} freed.")
        terminal.results().print("\n".join(lines), markup=False, soft_wrap=True)
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
        console.print(f"Kept: {one.key}: {one.why}", markup=False, soft_wrap=True)
    if not doomed:
        console.print("There is nothing to remove.")
    elif asking:
        console.print(f"{size_text(sum(one.bytes for one in doomed))} would be freed.", markup=False)


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
