"""`axosweep rm`: remove runs, or only their checkpoints. What another run needs is not removed."""

from __future__ import annotations

import time
from collections.abc import Sequence

from modal_app.store.layout import Store
from runner.command.removal import Place, add_removal, place_of, remove_after_asking, root_of
from runner.console.parser import Names, VerbParser
from runner.errors import SweepError
from runner.files.removal_plan import Choice, KeptRun, Removal, age_s, checkpoints_to_remove, runs_to_remove
from runner.files.stock import take_stock, with_read_results
from runner.store.finding import runs_in
from runner.store.stores import stores


def parser() -> VerbParser:
    verb = VerbParser("rm", description="Remove the files of runs. The record of what was requested stays.")
    verb.add(
        "what", nargs="*", names=[Names.RUN], help="runs, or sweeps (those of their runs that are in no other sweep)"
    )
    verb.add("--checkpoints", action="store_true", help="only the checkpoints of finished runs")
    add_removal(verb)
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    before = None if args.older_than is None else time.time() - age_s(args.older_than)
    if not args.what and before is None and not args.checkpoints:
        raise SweepError("Nothing to remove is named. Name runs or sweeps, or add --older-than 30d or --checkpoints.")
    choices = (
        _choices(args.what, args.store, before) if args.what else {root_of(args): Choice(every=True, before=before)}
    )

    def decide(place: Place) -> Removal:
        stock, choice = take_stock(place.files), choices[place.store]
        if args.checkpoints:
            stock = with_read_results(place.files, stock, [key for key, one in stock.runs.items() if choice.takes(one)])
        removal = (checkpoints_to_remove if args.checkpoints else runs_to_remove)(stock, choice, place.busy(stock))
        named = [one for one in removal.kept if one.key in choice.runs]
        if named:
            raise SweepError(_refusal(named))
        return removal

    places = [place_of(store, choice.runs | choice.sweeps) for store, choice in choices.items()]
    return remove_after_asking(places, decide, args)


def _refusal(named: Sequence[KeptRun]) -> str:
    if len(named) == 1:
        return f"Nothing was removed. {named[0].key} has to stay: {named[0].why}."
    lines = "\n".join(f"  {one.key}: {one.why}" for one in named)
    return f"Nothing was removed. These have to stay:\n{lines}"


def _choices(names: Sequence[str], store_folder: str | None, before: float | None) -> dict[Store, Choice]:
    """The runs and sweeps that the names stand for, by store. Raises SweepError for an unknown name."""
    runs: dict[Store, set[str]] = {}
    sweeps: dict[Store, set[str]] = {}
    for name in names:
        store, found, sweep = runs_in(stores(store_folder), name)
        runs.setdefault(store, set()).update(run.key for run in found if sweep is None)
        sweeps.setdefault(store, set()).update([sweep] if sweep is not None else [])
    return {store: Choice(frozenset(keys), frozenset(sweeps[store]), before=before) for store, keys in runs.items()}
