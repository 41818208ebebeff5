"""Executes follow-up steps where their runs are: on this machine, or on Modal for runs of its mirror."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modal_app.cloud.job import steps_file
from modal_app.store.full_disk import FREE_SOME, is_full
from modal_app.store.layout import STEPS, SUBMISSION, Store
from modal_app.store.read_json import read_json
from modal_app.store.state import StepState, observe
from modal_app.store.step import OutcomeStatus, write_atomically
from runner.console import terminal
from runner.console.interrupts import terminate_as_interrupt
from runner.errors import ExitCode, SweepError
from runner.executors.choose import Executor, local_executor_for, modal_executor_for
from runner.executors.modal_submission import submitted_as
from runner.follow_up.subjects import Subject
from runner.keys.identity import short_hash
from runner.show.progress import Progress
from runner.store.ledger import Ledger
from runner.store.stores import check_writable, is_mirror, while_it_exists
from runner.types import Gpu, Plan, PlannedStep

HASH_LENGTH = 6


@dataclass(frozen=True, slots=True)
class FollowUpResult:
    """The state of a step, once everything has ended."""

    step: PlannedStep
    state: StepState

    @property
    def succeeded(self) -> bool:
        outcome = self.state.outcome
        return outcome is not None and outcome.status is OutcomeStatus.SUCCEEDED

    @property
    def message(self) -> str:
        return self.state.outcome.message if self.state.outcome else "it has not started"


@terminate_as_interrupt()
def carry_out(
    subjects: Sequence[Subject], steps: Sequence[PlannedStep], *, command: str, inputs: Sequence[str] = ()
) -> list[FollowUpResult]:
    """Run the steps that are not done, and return the result of each. All are of one store and one sweep; their records
    go below that sweep's folder.

    `inputs`: the stored inputs that the steps read, as paths below the store's root. Raises SweepError before anything
    starts; a failed step is a result.
    """
    store = subjects[0].store
    if all(one.done for one in steps):
        return _results(steps, store)
    check_writable(store)
    with while_it_exists(store):
        name = follow_up_name(subjects[0].sweep, steps)
        named = tuple(replace(one, step=replace(one.step, sweep=name)) for one in steps)
        plan, ledger = Plan(name, (), (), after=named), Ledger(store, name)
        executor = _executor(subjects, plan, ledger, inputs)
        ledger.begin(command)
        # It shows `rm` and `cancel` which steps are still to be done.
        write_atomically(
            ledger.folder / STEPS, steps_file({f"{one.step.kind}/{one.step.key}": one.step for one in named}, {})
        )
        with Progress(plan, store, names={one.key: one.name for one in subjects}) as progress:
            executor.execute(plan, progress.update)
        return _results(steps, store)


def _results(steps: Sequence[PlannedStep], store: Store) -> list[FollowUpResult]:
    return [FollowUpResult(one, observe(store, one.step.kind, one.step.key)) for one in steps]


def follow_up_name(sweep: str, steps: Sequence[PlannedStep]) -> str:
    """The kinds are part of it, since a merge and an evaluation of one run may have the same key."""
    return f"{sweep}/after-{short_hash(sorted(f'{one.step.kind}/{one.step.key}' for one in steps), HASH_LENGTH)}"


def exit_code(carried: Sequence[FollowUpResult]) -> int:
    return ExitCode.SUCCEEDED if all(one.succeeded for one in carried) else ExitCode.FAILED


def show_failures(carried: Sequence[FollowUpResult], store: Store) -> None:
    """A line for each step that has not succeeded, with its log."""
    for one in carried:
        if not one.succeeded:
            folder = store.folder(one.step.step.kind, one.step.step.key)
            attempts = folder.attempts()
            log = f" Its log: {attempts[-1].log}" if attempts else ""
            line = f"{one.step.step.kind} {one.step.step.key}: {one.message}.{_no_room(folder.path)}{log}"
            terminal.message(line)


def tell_report(carried: Sequence[FollowUpResult], sweep: str) -> None:
    """The existing report was written when the sweep ended, so print the command that writes it again."""
    if any(one.succeeded for one in carried):
        terminal.message(f"To add this to the sweep's report: axosweep report {sweep}")


def _no_room(folder: Path) -> str:
    return f" The disk of {folder} is full. {FREE_SOME}" if is_full(folder) else ""


def _executor(subjects: Sequence[Subject], plan: Plan, ledger: Ledger, inputs: Sequence[str]) -> Executor:
    first = subjects[0]
    if not is_mirror(first.store):
        return local_executor_for(plan, first.store, ledger)
    sweep = submitted_as(first.store, first.key, first.sweep)
    raw = read_json(first.store.sweeps / sweep / SUBMISSION)
    if "deployment" not in raw:
        raise SweepError(
            f"{sweep} was submitted by an older axosweep, which did not record its deployment. Run the same command "
            "again: finished runs are skipped."
        )
    gpus = {"": _gpu(first)} | {one.key: _gpu(one) for one in subjects}
    return modal_executor_for(plan, first.store, ledger, raw["deployment"], gpus, inputs)


def _gpu(subject: Subject) -> Gpu:
    gpu = subject.identity.get("gpu", {})
    return Gpu(gpu.get("type", "cpu"), 1)
