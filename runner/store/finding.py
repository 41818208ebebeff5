"""What a name on the command line means: a sweep or a run, in the local store or in a mirror of a remote one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from modal_app.store.layout import StepFolder, Store
from modal_app.store.step import StepKind
from runner.errors import SweepError, did_you_mean
from runner.store.ledger import Ledger, SweepRun, find_sweep, last_asked, sweep_ids


@dataclass(frozen=True, slots=True)
class FoundSweep:
    store: Store
    sweep: str


def sweep_in(stores: Sequence[Store], asked: str | None) -> FoundSweep:
    """The sweep that a name, or the beginning of one, means; the newest of all stores when nothing is asked.

    A sweep asked for both here and on Modal means where it was asked for last. Raises SweepError when nothing fits, or
    more than one sweep of a store does.
    """
    holding = [store for store in stores if sweep_ids(store)]
    if not holding:
        return FoundSweep(stores[0], find_sweep(stores[0], asked))
    if asked is None:
        newest = max(holding, key=lambda store: last_asked(store, sweep_ids(store)[0]))
        return FoundSweep(newest, sweep_ids(newest)[0])
    fitting = [store for store in holding if any(sweep.startswith(asked) for sweep in sweep_ids(store))]
    if len(fitting) > 1:
        fitting = [max(fitting, key=lambda store: last_asked(store, find_sweep(store, asked)))]
    if not fitting:
        _refuse_run(stores, asked)
    store = fitting[0] if fitting else holding[0]
    return FoundSweep(store, find_sweep(store, asked))


def _refuse_run(stores: Sequence[Store], asked: str) -> None:
    """Raises SweepError for the name of a run, with its sweeps."""
    having = {
        sweep
        for store in stores
        for sweep in sweep_ids(store)
        if any(run.key.startswith(asked) for run in Ledger(store, sweep).plan().runs)
    }
    if having:
        raise SweepError(f"{asked} is a run, and a sweep is expected here: {' or '.join(sorted(having))} has it.")


def runs_in(stores: Sequence[Store], asked: str | None) -> tuple[Store, list[SweepRun], str | None]:
    """The runs of a sweep (and its id), or the one run, that a name or its beginning means.

    Raises SweepError like `sweep_in`.
    """
    if asked is not None and not any(one.startswith(asked) for store in stores for one in sweep_ids(store)):
        return _run_in(stores, asked)
    found = sweep_in(stores, asked)
    return found.store, list(Ledger(found.store, found.sweep).plan().runs), found.sweep


def _run_in(stores: Sequence[Store], asked: str) -> tuple[Store, list[SweepRun], None]:
    known = {
        (index, run.key): run
        for index, store in enumerate(stores)
        for sweep in sweep_ids(store)
        for run in Ledger(store, sweep).plan().runs
    }
    fits = {key: run for key, run in known.items() if run.key.startswith(asked)}
    keys = {run.key for run in fits.values()}
    if len(keys) > 1:
        raise SweepError(f"{asked} fits several runs: {', '.join(sorted(keys))}. Write more of the one you mean.")
    if not keys:
        raise _unknown(stores, asked, {run.key for run in known.values()})
    (index, _), run = max(fits.items(), key=lambda item: _last_written(stores[item[0][0]], item[1]))
    return stores[index], [run], None


def _unknown(stores: Sequence[Store], asked: str, runs: Collection[str]) -> SweepError:
    run, at, _ = asked.partition("@")
    if at and any(key.startswith(run) for key in runs):
        return SweepError(
            f"{asked}: a run or a sweep is expected. A checkpoint is what a run goes on from: from={asked}"
        )
    names = [*runs, *(one for store in stores for one in sweep_ids(store))]
    if not names:
        return SweepError(
            f"There is no run or sweep {asked}: {stores[0].root} has none yet. Another store: --store DIR, or "
            "AXOSWEEP_STORE."
        )
    where = " and ".join(str(store.root) for store in stores)
    return SweepError(
        f"There is no run or sweep {asked} in {where}.{did_you_mean(asked, names)} `axosweep status` lists them."
    )


def _last_written(store: Store, run: SweepRun) -> float:
    folder: StepFolder = store.folder(StepKind.TRAIN, run.key)
    return folder.path.stat().st_mtime if folder.path.exists() else 0.0
