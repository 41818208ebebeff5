"""`axosweep gc`: remove what nothing refers to any more."""

from __future__ import annotations

import time
from collections.abc import Sequence

from runner.command.removal import Place, add_removal, place_here, place_of, remove_after_asking, root_of
from runner.console.parser import VerbParser
from runner.files.garbage import garbage, old_downloads, stale_mirror
from runner.files.removal_plan import Removal, age_s
from runner.files.run_files import LocalFiles
from runner.files.stock import inputs_needed, take_stock
from runner.store.stores import is_mirror, stores


def parser() -> VerbParser:
    about = "Remove what nothing refers to any more: unused datasets and inputs, incomplete checkpoints, old caches."
    verb = VerbParser("gc", description=about)
    add_removal(verb)
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    before = None if args.older_than is None else time.time() - age_s(args.older_than)

    def decide(place: Place) -> Removal:
        stock = take_stock(place.files)
        if is_mirror(place.store) and isinstance(place.files, LocalFiles):
            stale = stale_mirror(stock, before=before)
            fetched = old_downloads(place.files.below("cache"), before=before, now=time.time())
            return Removal((*stale.to_delete, *fetched.to_delete))
        return garbage(stock, inputs_needed(place.files, stock), place.busy(stock), before=before, now=time.time())

    places = [place_of(root_of(args))]
    if not args.modal:
        places += [place_here(store) for store in stores(args.store) if is_mirror(store)]
    return remove_after_asking(places, decide, args)
