"""What `rm` and `gc` share: show what would be freed, ask, free it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modal_app.store.layout import Store
from runner.compare.table import Column, fitted, table
from runner.console import terminal
from runner.console.parser import VerbParser
from runner.console.print_json import print_json
from runner.console.question import confirm, is_interactive
from runner.console.transfer import size_text
from runner.files.local_removal import busy_here, remove_here
from runner.files.removal_plan import KeptRun, Removal, ToDelete
from runner.files.run_files import Files, LocalFiles
from runner.files.stock import Stock
from runner.store.stores import MIRRORS, open_store


@dataclass(frozen=True, slots=True)
class Place:
    """A store, here or on Modal, and how to remove something from it."""

    store: Store
    files: Files
    busy: Callable[[Stock], Callable[[str], str]]
    remove: Callable[[Removal], Removal]


@dataclass(frozen=True, slots=True)
class RemovalResult:
    """What `rm --json` and `gc --json` print."""

    to_delete: tuple[ToDelete, ...]
    kept: tuple[KeptRun, ...]
    """What has to stay, and why."""
    bytes: int
    """Of what is to be deleted."""
    freed: int
    """Bytes; 0 with --dry-run."""


def add_removal(parser: VerbParser) -> None:
    parser.add(
        "--older-than", metavar="AGE", help="only files that were last written longer ago than this: 12h, 30d, 2w"
    )
    parser.add(
        "--modal", action="store_true", help="on Modal's Volumes instead of this machine (rm: only if you name no run)"
    )
    parser.add("--dry-run", action="store_true", help="show what would be removed, and remove nothing")
    parser.add("--yes", action="store_true", help="do not ask")
    parser.add_store()
    parser.add_json()


def root_of(args: argparse.Namespace) -> Store:
    local = open_store(args.store)
    return Store(local.root / MIRRORS[0]) if args.modal else local


def place_of(store: Store, named: frozenset[str] = frozenset()) -> Place:
    """The place of a store's files: for a mirror, that is Modal. Only then is Modal imported."""
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
    to_delete = [one for removal in removals for one in removal.to_delete]
    if not args.json:
        _show(removals, asking=args.dry_run or not args.yes)
    if to_delete and not args.dry_run and not args.yes:
        _confirm(to_delete)
        removals = [_still(removal, decide(place)) for place, removal in zip(places, removals, strict=True)]
    done = removals
    if not args.dry_run:
        done = [place.remove(removal) for place, removal in zip(places, removals, strict=True)]
    kept = [one for removal in (*removals, *done) for one in removal.kept]
    freed = [] if args.dry_run else [one for removal in done for one in removal.to_delete]
    if args.json:
        bytes_found, bytes_freed = (sum(one.bytes for one in found) for found in (to_delete, freed))
        print_json(RemovalResult(tuple(to_delete), tuple(dict.fromkeys(kept)), bytes_found, bytes_freed))
    elif to_delete and not args.dry_run:
        lines = [f"Not removed: {one.key}: {one.why}" for removal in done for one in removal.kept]
        lines.append(f"{size_text(sum(one.bytes for one in freed))} freed.")
        terminal.result("\n".join(lines))
    return 0


def _show(removals: Sequence[Removal], *, asking: bool) -> None:
    console = terminal.results()
    to_delete = [one for removal in removals for one in removal.to_delete]
    if to_delete:
        columns = [
            Column("what", tuple(one.kind for one in to_delete), left=True),
            Column("", tuple(one.key for one in to_delete), left=True),
            Column("size", tuple(size_text(one.bytes) for one in to_delete)),
            Column("about it", tuple(one.note for one in to_delete), 1, left=True),
        ]
        console.print(table(fitted(columns, console.width)[0], "", [False] * len(to_delete)), crop=False)
    for one in (one for removal in removals for one in removal.kept):
        terminal.say(console, f"Not removed: {one.key}: {one.why}")
    if not to_delete:
        console.print("There is nothing to remove.")
    elif asking:
        console.print(f"{size_text(sum(one.bytes for one in to_delete))} would be freed.", markup=False)


def _confirm(to_delete: Sequence[ToDelete]) -> None:
    """Raises SweepError if the answer is not yes."""
    confirm(
        f"Remove {'this' if len(to_delete) == 1 else f'these {len(to_delete)}'}?",
        no_terminal="Nothing was removed: there is no terminal to ask on. Add --yes, or --dry-run to only look.",
        refused="Nothing was removed.",
        on_terminal=is_interactive(),
    )


def _still(agreed: Removal, now: Removal) -> Removal:
    """What was agreed to and may still be removed: the answer may have taken an hour."""
    same = {(one.kind, one.key): one for one in agreed.to_delete}
    return Removal(tuple(one for one in now.to_delete if (one.kind, one.key) in same), now.kept)
