"""`axosweep cancel`: stop a sweep or a run, here or on Modal. Finished work stays."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence

from modal_app.process.signals import group_exists, signal_group
from modal_app.store.claim import holder
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.console.parser import Names, VerbParser
from runner.executors.local import STOP_GRACE_S
from runner.store.finding import runs_in
from runner.store.ledger import SweepRun, live_launchers, steps_after, sweeps_after
from runner.store.stores import is_mirror, stores


def parser() -> VerbParser:
    verb = VerbParser("cancel", description="Stop a sweep or a run.")
    what = "a sweep's id or a run's key, or the beginning of it; the newest sweep by default"
    verb.add("what", nargs="?", names=[Names.RUN], help=what)
    verb.add_store()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    ended = cancel(*runs_in(stores(args.store), args.what))
    print(f"{ended} ended." if ended else "Nothing was running.")
    return 0


def cancel(store: Store, runs: Sequence[SweepRun], sweep: str | None) -> int:
    """Stop the workers of these runs, their datasets and their follow-up steps. With `sweep`, also the launchers of the
    sweep and of its follow-ups, and the follow-up steps that use the base model alone.

    Returns how many workers there were, or 1 when there was only a launcher.
    """
    if is_mirror(store):
        from runner.executors import modal_verbs

        return modal_verbs.cancel(store, runs, sweep)
    steps = {(StepKind.TRAIN, run.key) for run in runs} | {(StepKind.PREPROCESS, run.data_key) for run in runs}
    steps |= {step for run in runs for step in store.after(run.key)}
    after = sweeps_after(store, sweep) if sweep else []
    steps |= {(step.kind, step.key) for name in after for step in steps_after(store, name) if not step.run}
    launchers = [one for name in ([sweep, *after] if sweep else ()) for one in live_launchers(store, name)]
    for launcher in launchers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(launcher.pid, signal.SIGTERM)  # like Ctrl-C: it also stops workers that are starting
    groups = [owner.pgid for step in steps if (owner := holder(store.folder(*step))) and owner.pgid]
    for group in groups:
        signal_group(group, signal.SIGTERM)
    deadline = time.monotonic() + STOP_GRACE_S
    while time.monotonic() < deadline and any(group_exists(group) for group in groups):
        time.sleep(0.1)
    for group in groups:
        signal_group(group, signal.SIGKILL)
    return len(groups) or int(bool(launchers))
