"""`axosweep logs`: the newest attempt's log of a run, followed while it runs."""

from __future__ import annotations

import codecs
import sys
import time
from collections.abc import Callable, Sequence

from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from runner.console.harmless import harmless_log
from runner.console.parser import Names, VerbParser
from runner.errors import SweepError
from runner.store.finding import runs_in
from runner.store.ledger import SweepRun
from runner.store.stores import is_mirror, stores

POLL_S = 0.5
MIRROR_POLL_S = 2.0


def parser() -> VerbParser:
    verb = VerbParser("logs", description="The log of a run's newest attempt.")
    verb.add("run", names=[Names.RUN], help="a run's key, or the beginning of it")
    verb.add("-f", "--follow", action="store_true", help="keep printing until the run has ended")
    verb.add_store()
    return verb


def main(words: Sequence[str]) -> int:
    args = parser().read(words)
    store, runs, _ = runs_in(stores(args.store), args.run)
    if len(runs) > 1:
        raise SweepError(f"{args.run} has {len(runs)} runs: {', '.join(run.key for run in runs)}. Name one.")
    show(store, runs[0], follow=args.follow)
    return 0


def show(store: Store, run: SweepRun, *, follow: bool) -> None:
    """Print the log; with `follow`, until the run has ended.

    Raises SweepError without an attempt, unless it waits for one on Modal.
    """
    folder = store.folder(StepKind.TRAIN, run.key)
    is_active, poll_s = _watcher(store, run)
    log, printed, write = None, 0, _writer()
    while True:
        active = is_active()  # before reading: if the run ends meanwhile, its log is read to the end
        attempts = folder.attempts()
        if not attempts and not (follow and active and is_mirror(store)):
            if folder.removed.exists():
                raise SweepError(f"The run {run.key} was removed, and its log with it.")
            raise SweepError(f"Run {run.key} has no log yet: no attempt has begun.")
        # On Modal an attempt exists before its worker, and has no log if its container has died early.
        logs = [attempt.log for attempt in attempts if attempt.log.exists()]
        if logs and logs[-1] != log:
            log, printed, write = logs[-1], 0, _writer()
        if log is not None:
            with log.open("rb") as file:
                file.seek(printed)
                content = file.read()
            printed += len(content)
            write(content)
        if not follow or not active:
            return
        time.sleep(poll_s)


def _writer() -> Callable[[bytes], None]:
    """A function that prints the parts of a log: byte for byte, but neutralized on a terminal."""
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode

    def write(content: bytes) -> None:
        if sys.stdout.isatty():
            sys.stdout.write(harmless_log(decode(content)))
        else:
            sys.stdout.buffer.write(content)
        sys.stdout.flush()

    return write


def _watcher(store: Store, run: SweepRun) -> tuple[Callable[[], bool], float]:
    """A function that brings a run up to date and returns whether it is active, and the seconds between calls."""
    phase = observe(store, StepKind.TRAIN, run.key).phase
    if not is_mirror(store) or phase is Phase.SUCCEEDED:
        return lambda: observe(store, StepKind.TRAIN, run.key).phase is Phase.RUNNING, POLL_S
    from runner.executors import modal_verbs

    return modal_verbs.watcher(store, run), MIRROR_POLL_S
