"""`axosweep cancel`: stop a sweep or a run, here or on Modal. Finished work stays."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence

from modal_app.process.signals import signal_group
from modal_app.store import stop_notes
from modal_app.store.claim import Owner, holder
from modal_app.store.layout import StepFolder, Store
from modal_app.store.step import StepKind
from runner.console import terminal
from runner.console.interrupts import exit_on_interrupt
from runner.console.parser import Names, VerbParser
from runner.executors.stop_times import stop_message
from runner.store.finding import runs_in
from runner.store.ledger import SweepRun, live_launchers, steps_after, sweeps_after
from runner.store.stores import is_mirror, stores
from runner.types import StepId

POLL_S = 0.1


def parser() -> VerbParser:
    verb = VerbParser(
        "cancel",
        description="Stop a sweep or a run. Runs finish their step and save a checkpoint first. To kill them at once, "
        "repeat the command.",
    )
    what = "a sweep's id or a run's key, or the beginning of it; the newest sweep by default"
    verb.add("what", nargs="?", names=[Names.RUN], help=what)
    verb.add_store()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    with exit_on_interrupt("axosweep: no longer waiting; the runs stop by themselves. axosweep cancel kills them."):
        ended = cancel(*runs_in(stores(args.store), args.what))
    print(f"{ended} ended." if ended else "Nothing was running.")
    return 0


def cancel(store: Store, runs: Sequence[SweepRun], sweep: str | None) -> int:
    """Stop the workers of these runs, their datasets and their follow-up steps. With `sweep`, also the launchers of the
    sweep and of its follow-ups, and the follow-up steps that use the base model alone.

    A worker that was already asked to stop, by any process, is killed. Waits for all of them, however long it takes.
    Returns how many workers there were, or 1 when there was only a launcher.
    """
    if is_mirror(store):
        from runner.executors import modal_verbs

        return modal_verbs.cancel(store, runs, sweep, terminal.message)
    steps = {(StepKind.TRAIN, run.key) for run in runs} | {(StepKind.PREPROCESS, run.data_key) for run in runs}
    steps |= {step for run in runs for step in store.after(run.key)}
    after = sweeps_after(store, sweep) if sweep else []
    steps |= {(step.kind, step.key) for name in after for step in steps_after(store, name) if not step.run}
    launchers = [one for name in ([sweep, *after] if sweep else ()) for one in live_launchers(store, name)]
    owners = {step: owner for step in steps if (owner := holder(store.folder(*step))) and owner.pgid}
    signals = {step: _next_signal(store.folder(*step)) for step in owners}  # before a launcher also requests it
    for launcher in launchers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(launcher.pid, signal.SIGTERM)  # like Ctrl-C: it also stops workers that are starting
    for step, owner in owners.items():
        signal_group(owner.pgid, signals[step])
    stopping = [step for step, number in signals.items() if number is signal.SIGTERM]
    if message := stop_message(store, stopping, "axosweep cancel again"):
        terminal.message(message)
    while any(_works(store, step, owner) for step, owner in owners.items()):
        time.sleep(POLL_S)
    return len(owners) or int(bool(launchers))


def _next_signal(folder: StepFolder) -> signal.Signals:
    """The first request lets a worker save, the second kills it. Notes which one it is."""
    attempt = stop_notes.running(folder)
    if attempt is None:
        return signal.SIGTERM
    if stop_notes.has_stop_request(attempt):
        stop_notes.note_kill(attempt, "axosweep cancel, which asked a second time")
        return signal.SIGKILL
    stop_notes.note_stop_request(attempt, "axosweep cancel")
    return signal.SIGTERM


def _works(store: Store, step: StepId, owner: Owner) -> bool:
    now = holder(store.folder(*step))
    return now is not None and now.pid == owner.pid
