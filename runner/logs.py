"""`axosweep logs`: the newest attempt's log of a run, followed while it runs."""

from __future__ import annotations

import sys
import time

from modal_app.layout import Store
from modal_app.state import Phase, observe
from modal_app.step import StepKind
from runner.errors import SweepError
from runner.ledger import SweepRun
from runner.store import is_mirror

POLL_S = 0.5


def show(store: Store, run: SweepRun, *, follow: bool) -> None:
    """Print the log; with `follow`, go on until the run has ended. Raises SweepError before the first attempt."""
    folder = store.folder(StepKind.TRAIN, run.key)
    printed = 0
    while True:
        if is_mirror(store):
            from runner.executors import modal_verbs

            modal_verbs.refresh(store, [run])
        running = observe(store, StepKind.TRAIN, run.key).phase is Phase.RUNNING
        attempts = folder.attempts()
        if not attempts:
            raise SweepError(f"Run {run.key} has no log yet: no attempt has begun.")
        log = attempts[-1].log
        if log.exists():
            with log.open("rb") as file:
                file.seek(printed)
                text = file.read()
            printed += len(text)
            sys.stdout.write(text.decode(errors="replace"))
            sys.stdout.flush()
        if not follow or not running:
            return
        time.sleep(POLL_S)
