"""What the verbs do with a sweep on Modal: attach to it, cancel it. From its id alone, on any machine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence

import modal.exception

from modal_app.layout import SUBMISSION, Store
from modal_app.step import StepKind
from runner.errors import SweepError
from runner.executors.modal_mirror import MirroredStep, ModalMirror, Names, fetch_sweep
from runner.ledger import Ledger, SweepRun

POLL_S = 2.0


def attach(store: Store, sweep: str, runs_volume: str, watch: Callable[[], None]) -> None:
    """Mirror a sweep until everything in it has ended, calling `watch` after each look.

    Raises SweepError when the Volume has no such sweep, or Modal does not let us in.
    """
    try:
        names, steps = fetch_sweep(store, sweep, runs_volume)
        mirror = ModalMirror(store, names)
        while not mirror.look(steps):
            watch()
            time.sleep(POLL_S)
        mirror.note_blocked(steps, Ledger(store, sweep))
        watch()
    except modal.exception.NotFoundError as error:
        raise SweepError(f"Modal has no Volume {runs_volume}: nothing was submitted there ({error}).") from error
    except modal.exception.AuthError as error:
        raise SweepError(f"Modal did not let us in ({error}). Run `modal token new`.") from error


def refresh(store: Store, runs: Sequence[SweepRun]) -> None:
    """Look once at the runs of a mirrored sweep."""
    names = _names(store, runs)
    if names is not None:
        ModalMirror(store, names).refresh(_steps(runs))


def cancel(store: Store, runs: Sequence[SweepRun]) -> int:
    """End the calls that work on these runs, containers included; returns how many there were."""
    names = _names(store, runs)
    if names is None:
        return 0
    mirror = ModalMirror(store, names)
    ended = mirror.cancel(_steps(runs))
    mirror.refresh(_steps(runs))
    return ended


def _steps(runs: Sequence[SweepRun]) -> list[MirroredStep]:
    datasets = dict.fromkeys(run.data_key for run in runs)
    trains = [MirroredStep(StepKind.TRAIN, run.key, run.data_key) for run in runs]
    return [MirroredStep(StepKind.PREPROCESS, key, key) for key in datasets] + trains


def _names(store: Store, runs: Sequence[SweepRun]) -> Names | None:
    """The names under which a run was submitted; None for one that no sweep of this mirror has submitted."""
    wanted = {run.key for run in runs}
    for path in store.sweeps.glob(f"*/{SUBMISSION}"):
        raw = json.loads(path.read_text(encoding="utf-8"))
        if wanted & {step["key"] for step in raw["steps"]}:
            return Names(**raw["names"])
    return None
