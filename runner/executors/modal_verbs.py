"""What the verbs do with a sweep on Modal: attach to it, look once, follow a run, cancel."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import modal
import modal.exception

from modal_app.cloud.connection import lost_connections
from modal_app.store.layout import BASE_MODEL_KEY, SUBMISSION, Store, parts_of_key
from modal_app.store.state import Phase, observe
from modal_app.store.step import FOLLOW_UP_KINDS, FailureReason, write_atomically
from runner.cost.spent import containers
from runner.errors import SweepError
from runner.executors.modal_copies import listed, read_text
from runner.executors.modal_errors import UNREACHED, explained
from runner.executors.modal_mirror import ModalMirror, follow, look_once
from runner.executors.modal_searches import ModalSearches
from runner.executors.modal_submission import MirroredStep, Names, read_submission, submission_in
from runner.store.ledger import Ledger, SweepRun

CANCEL_WAIT_S = 60.0
"""Modal kills a cancelled container 30 s after telling it to stop; then its last files can be copied."""


def attach(store: Store, sweep: str, runs_volume: str, watch: Callable[[], None]) -> None:
    """Mirror a sweep until everything in it has ended, calling `watch` after each look.

    Raises SweepError when the Volume has no such sweep, or Modal refuses the login.
    """
    try:
        with explained(modal.exception.NotFoundError):
            names, steps = _fetch_sweep(store, sweep, runs_volume)
            mirror, ledger = ModalMirror(store, names), Ledger(store, sweep)
            searches = ModalSearches.of(store, names, mirror.claims, steps)
            follow(mirror, steps, ledger, watch, lambda: searches.start(sweep, ledger))
    except modal.exception.NotFoundError as error:
        raise SweepError(f"Modal has no Volume {runs_volume}: nothing was submitted there ({error}).") from error


def look(store: Store, sweep: str) -> None:
    """Bring a sweep of the mirror up to date, once. Does nothing for a sweep that was never submitted."""
    if not (store.sweeps / sweep / SUBMISSION).exists():
        return
    with explained():
        names, steps = read_submission(store, sweep)
        look_once(ModalMirror(store, names), steps, Ledger(store, sweep))


def watcher(store: Store, run: SweepRun) -> Callable[[], bool]:
    """A function to call repeatedly: it brings one run up to date and returns whether the run is live."""
    found = _submitted(store, [run], None)
    if found is None:
        return lambda: False
    mirror, submitted = found
    steps = [step for step in submitted if step.kind not in FOLLOW_UP_KINDS]

    def goes_on() -> bool:
        with explained():
            try:
                with lost_connections():
                    return not mirror.refresh(steps)
            except UNREACHED:
                return True

    return goes_on


def cancel(store: Store, runs: Sequence[SweepRun], sweep: str | None, say: Callable[[str], None]) -> int:
    """End the calls that work on these runs, with their containers; returns how many there were.

    The containers get time to save a checkpoint; this waits for them and copies their last files. `say`: gets a line if
    that takes longer than a moment.
    """
    found = _submitted(store, runs, sweep)
    if found is None:
        return 0
    mirror, steps = found
    with explained():
        ended = mirror.cancel(steps, sweep)
        deadline = time.monotonic() + CANCEL_WAIT_S
        waited_for, has_said = [step for step in steps if step.name in ended], False
        while True:
            ModalMirror(store, mirror.names).refresh(steps)  # a new mirror copies everything again
            # The last copy begins when all have ended: one during which a container ends may lack what it saved last.
            if not waited_for or time.monotonic() > deadline:
                return len(ended)
            waited_for = [step for step in waited_for if not has_ended(store, step)]
            if waited_for and not has_said:
                say(f"Waiting for the containers to save what they have, at most {CANCEL_WAIT_S:.0f} s.")
                has_said = True
            if waited_for:
                time.sleep(1.0)


def has_ended(store: Store, step: MirroredStep) -> bool:
    """Whether nothing new is to be expected of a step whose call was cancelled: it says how it has ended, or its
    container has written its last record."""
    state = observe(store, step.kind, step.key)
    unpublished = state.outcome is not None and state.outcome.reason is FailureReason.UNPUBLISHED
    if state.phase is not Phase.LOST and not unpublished:
        return True
    records = containers(store.folder(step.kind, step.key))
    return any(record.ended and state.attempt in record.attempts for record in records)


def _fetch_sweep(store: Store, sweep: str, runs_volume: str) -> tuple[Names, list[MirroredStep]]:
    """Copy the plan of a submitted sweep into the mirror; the sweep's id is enough.

    Raises SweepError when the runs Volume has no such sweep.
    """
    volume = modal.Volume.from_name(runs_volume)
    here = store.sweeps / sweep
    wanted = ("plan.json", SUBMISSION)
    files = [entry for entry in listed(volume, f"sweeps/{sweep}") if PurePosixPath(entry.path).name in wanted]
    if not files:
        known = ", ".join(PurePosixPath(entry.path).name for entry in listed(volume, "sweeps")) or "none"
        raise SweepError(f"The Volume {runs_volume} has no sweep {sweep}. It has: {known}.")
    here.mkdir(parents=True, exist_ok=True)
    for entry in files:
        write_atomically(here / PurePosixPath(entry.path).name, read_text(volume, entry.path))
    return read_submission(store, sweep)


def _submitted(
    store: Store, runs: Sequence[SweepRun], sweep: str | None
) -> tuple[ModalMirror, list[MirroredStep]] | None:
    """These runs, their datasets and follow-up steps, as `sweep` (or any sweep) has submitted them; None when none has.

    With `sweep`, also its steps of the base model alone. Of several submissions, those count that use the same names as
    the first.
    """
    keys = {run.key for run in runs}
    wanted = keys | {run.data_key for run in runs}
    found: dict[str, MirroredStep] = {}
    used: Names | None = None
    for path in sorted(store.sweeps.glob(f"{sweep or '*'}/**/{SUBMISSION}")):
        if (submitted := submission_in(path)) is None:
            continue
        names, steps = submitted
        if names == (used or names) and keys & {step.run or step.key for step in steps}:
            used = names
            alone = {step.key for step in steps if sweep is not None and parts_of_key(step.key)[0] == BASE_MODEL_KEY}
            found |= {step.name: step for step in steps if step.key in wanted | alone or step.run in keys}
    return None if used is None else (ModalMirror(store, used), list(found.values()))
