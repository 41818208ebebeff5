"""Plans the follow-up steps that a sweep's runs request with `stages`: each is started by the one before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.own_data import own_data_of
from modal_app.store.state import Phase, observe
from modal_app.store.step import OutcomeStatus, StepKind
from runner.environment import trainer_environment
from runner.errors import SweepError
from runner.follow_up.steps import evaluate_step, merge_step
from runner.follow_up.subjects import Subject
from runner.show.tables import names_of
from runner.types import Plan, PlannedRun, PlannedStep, Run


def with_stages(plan: Plan, store: Store) -> Plan:
    """The plan with the follow-up steps that its runs request, and without training if they do not request it.

    Raises SweepError for a merge of a run without an adapter, and for an evaluation without held-out rows.
    """
    runs = tuple(replace(one, trains="train" in one.run.experiment.stages) for one in plan.runs)
    names = names_of(plan)
    after = tuple(step for one in runs for step in _after(one, store, plan.sweep, names[one.run.key]))
    return replace(plan, runs=runs, after=after)


def _after(planned: PlannedRun, store: Store, sweep: str, name: str) -> Iterator[PlannedStep]:
    later = [stage for stage in planned.run.experiment.stages if stage not in ("preprocess", "train")]
    if not later:
        return
    subject = _subject(planned.run, store, sweep, name)
    needs = (StepKind.TRAIN, planned.run.key)
    for stage in later:
        step = merge_step(subject) if stage == "merge" else _evaluation(subject)
        yield replace(step, needs=needs)
        needs = (step.step.kind, step.step.key)


def _evaluation(subject: Subject) -> PlannedStep:
    """An evaluation on the held-out rows."""
    if own := own_data_of(subject.config):
        raise SweepError(
            f"stages has eval, but {subject.name} reads its own data ({own.key}), so its held-out rows are not stored: "
            "training evaluates its first and last state on them. Leave eval out of stages."
        )
    if not (subject.config.get("val_set_size") or subject.config.get("test_datasets")):
        raise SweepError(
            f"stages has eval, but {subject.name} has no held-out rows: set val_set_size=0.05, or leave eval out of "
            "stages."
        )
    return evaluate_step(subject, {})


def _subject(run: Run, store: Store, sweep: str, name: str) -> Subject:
    """The same as `follow_up.subjects` finds once the run has finished."""
    identity: Mapping[str, Any] = {
        "gpu": {"type": run.experiment.gpu.type},
        "axolotl": dict(run.experiment.axolotl),
        "trainer_lock": trainer_environment.identity(run.experiment.executor.modal),
    }
    return Subject(store, sweep, run.key, run.data_key, run.config, identity, name)


def failed_stages(plan: Plan, store: Store) -> dict[str, str]:
    """Run key -> why one of its follow-up steps failed, once everything has ended."""
    failed: dict[str, str] = {}
    for one in plan.after:
        if observe(store, StepKind.TRAIN, one.step.run).phase is Phase.AT_RUNG:
            continue  # it waits until the run goes on
        outcome = observe(store, one.step.kind, one.step.key).outcome
        if outcome is None or outcome.status is not OutcomeStatus.SUCCEEDED:
            message = outcome.message if outcome else "it has not started"
            failed.setdefault(one.step.run, f"{one.step.kind}: {message}")
    return failed
