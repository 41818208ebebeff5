"""Runs one step in one folder: `python modal_app/run.py worker --store DIR [--attempt N [--scratch DIR]] < step.json`.

The same on a laptop and on eight H100s. Standard library until the step's own work begins. Exit codes: 0 succeeded
(now or earlier), 1 failed, 3 stopped on request, 75 claimed by another live worker. The codes are a convenience; the
folder has the authoritative result.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from modal_app.process import attempt as attempts
from modal_app.process import healing, imports, rank, ranks, stop, tracking
from modal_app.process.failures import Failure, classify
from modal_app.process.rank import Rank
from modal_app.process.stop import AtRung, Stopped
from modal_app.steps import train
from modal_app.steps.pinned_inputs import check_inputs, check_mapped, pinned_inputs
from modal_app.store import checkpoints, state, user_code
from modal_app.store.claim import AlreadyClaimed, claim, keep
from modal_app.store.layout import ATTEMPT_PREFIX, Attempt, StepFolder, Store
from modal_app.store.step import EXIT_HELD, Outcome, OutcomeStatus, Step, StepKind, write_atomically
from modal_app.store.verified import withdraw_damaged

EXIT_CODES = {
    OutcomeStatus.SUCCEEDED: 0,
    OutcomeStatus.FAILED: 1,
    OutcomeStatus.STOPPED: 3,
    OutcomeStatus.AT_RUNG: 4,
    OutcomeStatus.LOST: 1,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Run one step, read as JSON from standard input.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--store", type=Path)
    what.add_argument("--rank", type=Path, metavar="ATTEMPT", help="run one rank of an attempt (for the worker itself)")
    parser.add_argument("--attempt", type=int, default=0, metavar="N", help="write into the draft of attempt N only")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="what of this draft lies on another disk")
    parser.add_argument("--locks", type=int, nargs="+", default=[], help="descriptors of locks, to keep until the end")
    arguments = parser.parse_args()
    keep(arguments.locks)
    if arguments.rank is not None:
        return _run_fresh_rank(arguments.rank, arguments.scratch)
    step = Step.from_json(sys.stdin.read())
    lead_a_session()
    store = Store(arguments.store.resolve())
    return exit_code(step, store, warm=False, attempt=arguments.attempt, scratch=arguments.scratch)


def lead_a_session() -> None:
    """Start a process group, so that a step can be signalled and killed with all its children."""
    if os.getpid() != os.getsid(0):
        os.setsid()


def exit_code(step: Step, store: Store, *, warm: bool, attempt: int = 0, scratch: Path | None = None) -> int:
    try:
        return EXIT_CODES[run_step(step, store, warm=warm, drafted_by=attempt, scratch=scratch).status]
    except AlreadyClaimed:
        return EXIT_HELD


def run_step(
    step: Step, store: Store, *, warm: bool = False, drafted_by: int = 0, scratch: Path | None = None
) -> Outcome:
    """Run a step to its end, in this process, and record its outcome.

    `warm`: this is a fork of a process that has imported everything, so ranks are forked, too. `drafted_by`: the
    attempt whose draft it writes; 0: a new attempt, which writes the step's own files. `scratch`: where the large files
    of that draft are, if not in it.

    Raises AlreadyClaimed when another live worker has claimed the step.
    """
    published = store.folder(step.kind, step.key)
    folder = published.draft_of(drafted_by, scratch) if drafted_by else published
    with claim(folder, step.sweep) as descriptor:
        damage = withdraw_damaged(store, step.key) if step.kind is StepKind.PREPROCESS else ""
        if state.is_done(published):
            done = state.observe(store, step.kind, step.key).outcome
            assert done is not None
            return done
        original, step = step, healing.with_smaller_batch(step, folder)
        attempt = attempts.begin(step, store, folder, original.config)
        stop.set_stop_handler(functools.partial(_give_up, step, folder, attempt, time.time()))
        tracking.forget_description(step, folder)
        os.environ |= attempts.environment(step, folder, attempt)
        user_code.make_importable(step.config, store.root)
        attempts.enter(attempt)
        if damage:
            print(f"The prepared dataset is damaged, so it is prepared again: {damage}.")
        outcome = _attempt(rank.become(Rank(step, folder, attempt)), store, descriptor, warm=warm)
        outcome = healing.judged(outcome, original, step, folder)
        _record(outcome, step, folder, attempt)
        return outcome


def _attempt(this: Rank, store: Store, descriptor: int, *, warm: bool) -> Outcome:
    """The process boundary: every error below becomes an Outcome."""
    started_at, began = time.time(), time.monotonic()
    facts: dict[str, Any] = {}
    status, reason, message = OutcomeStatus.SUCCEEDED, None, ""
    try:
        for part in _parts(this, store, descriptor, warm=warm):
            facts |= part
    except Stopped as request:
        status, message = OutcomeStatus.STOPPED, str(request)
    except AtRung as stopped:
        status, message, facts = OutcomeStatus.AT_RUNG, str(stopped), {**facts, **stopped.facts}
    except Exception as error:  # the process boundary: a failed step is a recorded value
        failure = _failure(error, this)
        status, reason, message = OutcomeStatus.FAILED, failure.reason, failure.message
        facts |= failure.facts
        if stop.requested():
            status, reason = OutcomeStatus.STOPPED, None
    if status is not OutcomeStatus.SUCCEEDED:
        facts |= train.known_facts(this.attempt)
    ended_at = started_at + time.monotonic() - began  # the clock may be set while it works
    return Outcome(status, this.attempt.number, started_at, ended_at, reason, message, facts)


def _parts(this: Rank, store: Store, descriptor: int, *, warm: bool) -> Iterator[Mapping[str, Any]]:
    """Do the work; yields facts as they become known."""
    step, folder, attempt = this.step, this.folder, this.attempt
    match step.kind:
        case StepKind.PREPROCESS:
            imports.load(imports.PREPROCESS, step.device)
            this.clock.book("import")
            from modal_app.steps.preprocess import preprocess

            yield preprocess(step, store, folder, attempt, this)
        case StepKind.TRAIN:
            check_inputs(step, store)
            yield train.prepare(step, store, folder, attempt)
            if step.processes == 1:
                os.environ |= ranks.alone() if step.config.get("deepspeed") else {}
                train.run_rank(this)
            else:
                ranks.run(step.processes, this, descriptor, forked=(lambda: _run_rank(this)) if warm else None)
            stop.set_stop_handler(None)  # from here on, a stop must not discard the finished training
            if step.processes > 1 and stop.requested() and not train.has_begun(attempt):
                raise Stopped("stopped before training began")
            check_mapped(step, store)
            yield train.verdict(step, folder, attempt)
            train.finish(step, folder)
        case StepKind.MERGE | StepKind.INFER | StepKind.EVALUATE:
            imports.load(imports.for_kind(step.kind), step.device)
            this.clock.book("import")
            with pinned_inputs(step, store):
                facts = follow_up(step.kind)(step, store, folder, attempt, this)
            yield facts
            yield {"phases": this.clock.seconds, "cpu": this.clock.cpu}


Work = Callable[[Step, Store, StepFolder, Attempt, Rank], Mapping[str, Any]]
"""Works in the attempt's folder, moves its results to the step's folder, and returns the outcome's facts."""


def follow_up(kind: StepKind) -> Work:
    """The function that does a follow-up step."""
    match kind:
        case StepKind.MERGE:
            from modal_app.steps.merge import merge

            return merge
        case StepKind.INFER:
            from modal_app.steps.infer import infer

            return infer
        case StepKind.EVALUATE:
            from modal_app.steps.evaluate import evaluate

            return evaluate
    raise ValueError(f"{kind} is not a follow-up step")


def _give_up(step: Step, folder: StepFolder, attempt: Attempt, started_at: float, name: str) -> NoReturn:
    """Stop before there is anything worth saving: record that, and end this process and its process pools."""
    message = f"stopped by {name} before training began" if step.kind is StepKind.TRAIN else f"stopped by {name}"
    outcome = Outcome(OutcomeStatus.STOPPED, attempt.number, started_at, time.time(), message=message)
    _record(outcome, step, folder, attempt)
    if os.getpgid(0) == os.getpid():
        os.killpg(0, signal.SIGTERM)  # this process has no handler for it any more
    os._exit(EXIT_CODES[OutcomeStatus.STOPPED])


def _failure(error: Exception, this: Rank) -> Failure:
    if isinstance(error, ranks.RankFailed):
        return error.failure
    with contextlib.suppress(OSError):  # the log is on a full disk
        traceback.print_exc()
    return classify(error, this.clock.phase)


def _record(outcome: Outcome, step: Step, folder: StepFolder, attempt: Attempt) -> None:
    """Success is recorded first, in one file, so that no attempt contradicts it after a kill in between."""
    stop.set_stop_handler(None)
    attempts.clean(attempt)
    if step.kind is not StepKind.PREPROCESS and outcome.status is OutcomeStatus.SUCCEEDED:
        write_atomically(folder.done, outcome.to_json())
    try:
        write_atomically(folder.result_of(attempt), outcome.to_json())
    except OSError:
        checkpoints.remove_incomplete(folder.model)  # a full disk: what was cut off is of no use
        write_atomically(folder.result_of(attempt), outcome.to_json())


def _run_fresh_rank(path: Path, scratch: Path | None) -> int:
    """One rank of several, in a process of its own: its parent has created the attempt and has the claim."""
    attempt = Attempt(path, int(path.name.removeprefix(ATTEMPT_PREFIX)))
    step = Step.from_json(attempt.step.read_text(encoding="utf-8"))
    folder = StepFolder(path.parent, done=path.parent / "result.json")
    folder = folder.draft_of(attempt.number, scratch) if attempt.draft.exists() else folder
    stop.end_with_parent(signal.SIGTERM)
    return _run_rank(rank.become(Rank(step, folder, attempt)))


def _run_rank(this: Rank) -> int:
    """A rank's process boundary: a file tells its parent why it failed."""
    stop.set_stop_handler(lambda _: os._exit(EXIT_CODES[OutcomeStatus.STOPPED]))
    try:
        train.run_rank(this)
    except Stopped:
        return EXIT_CODES[OutcomeStatus.STOPPED]
    except Exception as error:  # the process boundary: the worker reads this rank's file
        failure = _failure(error, this)
        write_atomically(this.attempt.failure(this.number), failure.to_json())
        return EXIT_CODES[OutcomeStatus.FAILED]
    return 0
