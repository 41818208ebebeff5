"""What a name on the command line means: a sweep or a run, in the local store or in a mirror of a remote one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from modal_app.store.layout import StepFolder, Store
from modal_app.store.step import StepKind
from runner.errors import SweepError, did_you_mean
from runner.store.ledger import Ledger, SweepRun, find_sweep, last_activity, refuse_blank, sweep_ids


@dataclass(frozen=True, slots=True)
class FoundSweep:
    store: Store
    sweep: str


def sweep_in(stores: Sequence[Store], name: str | None) -> FoundSweep:
    """The sweep with that name or beginning of a name; None means the newest of all stores.

    A sweep that was launched both here and on Modal means the place of its last launch. Raises SweepError when nothing
    matches, or more than one sweep of a store does.
    """
    nonempty = [store for store in stores if sweep_ids(store)]
    if not nonempty:
        return FoundSweep(stores[0], find_sweep(stores[0], name))
    if name is None:
        newest = max(nonempty, key=lambda store: last_activity(store, sweep_ids(store)[0]))
        return FoundSweep(newest, sweep_ids(newest)[0])
    refuse_blank(name)
    matching = [store for store in nonempty if any(sweep.startswith(name) for sweep in sweep_ids(store))]
    if len(matching) > 1:
        matching = [max(matching, key=lambda store: last_activity(store, find_sweep(store, name)))]
    if not matching:
        _refuse_run(stores, name)
    store = matching[0] if matching else nonempty[0]
    return FoundSweep(store, find_sweep(store, name))


def _refuse_run(stores: Sequence[Store], name: str) -> None:
    """Raises SweepError for the name of a run, with its sweeps."""
    sweeps = {
        sweep
        for store in stores
        for sweep in sweep_ids(store)
        if any(run.key.startswith(name) for run in Ledger(store, sweep).plan().runs)
    }
    if sweeps:
        raise SweepError(f"{name} is a run, but a sweep is expected here: {' or '.join(sorted(sweeps))} has it.")


def runs_in(stores: Sequence[Store], name: str | None) -> tuple[Store, list[SweepRun], str | None]:
    """The runs of a sweep (and its id), or the one run, with that name or beginning of a name.

    Raises SweepError like `sweep_in`.
    """
    if name is not None:
        refuse_blank(name)
    if name is not None and not any(one.startswith(name) for store in stores for one in sweep_ids(store)):
        return _run_in(stores, name)
    found = sweep_in(stores, name)
    return found.store, list(Ledger(found.store, found.sweep).plan().runs), found.sweep


def _run_in(stores: Sequence[Store], name: str) -> tuple[Store, list[SweepRun], None]:
    known = {
        (index, run.key): run
        for index, store in enumerate(stores)
        for sweep in sweep_ids(store)
        for run in Ledger(store, sweep).plan().runs
    }
    fits = {key: run for key, run in known.items() if run.key.startswith(name)}
    keys = {run.key for run in fits.values()}
    if len(keys) > 1:
        raise SweepError(
            f"{name} is the beginning of several runs' keys: {', '.join(sorted(keys))}. Write more of the key."
        )
    if not keys:
        raise _unknown(stores, name, {run.key for run in known.values()})
    (index, _), run = max(fits.items(), key=lambda item: _last_written(stores[item[0][0]], item[1]))
    return stores[index], [run], None


def _unknown(stores: Sequence[Store], name: str, runs: Collection[str]) -> SweepError:
    run, at, _ = name.partition("@")
    if at and any(key.startswith(run) for key in runs):
        return SweepError(f"{name} is a checkpoint, but a run or a sweep is expected. To start from it: from={name}")
    names = [*runs, *(one for store in stores for one in sweep_ids(store))]
    if not names:
        return SweepError(
            f"There is no run or sweep {name}: {stores[0].root} has none yet. Name another store with --store DIR or "
            "AXOSWEEP_STORE."
        )
    where = " and ".join(str(store.root) for store in stores)
    return SweepError(
        f"There is no run or sweep {name} in {where}.{did_you_mean(name, names)} `axosweep status` lists them."
    )


def _last_written(store: Store, run: SweepRun) -> float:
    folder: StepFolder = store.folder(StepKind.TRAIN, run.key)
    return folder.path.stat().st_mtime if folder.path.exists() else 0.0
