"""What `axosweep plan --json` prints: a plan with everything that is known of it, or what is wrong with a request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modal_app.store.layout import Store
from modal_app.store.own_data import OwnData
from modal_app.store.step import StepKind
from runner.estimate.disk import PrintedDisk
from runner.estimate.words import PrintedCost, printed_cost
from runner.executors.choose import modal_containers, modal_disk
from runner.executors.modal_gpus import Containers
from runner.keys.code import Code
from runner.launch import plan_inputs
from runner.launch.plan_diff import PlanDiff
from runner.launch.plan_inputs import HubModel, RunCounts
from runner.launch.types import Launch
from runner.preflight.stage import PrintedPreflight
from runner.request import LeftOut
from runner.types import Experiment, Gpu, Input, Plan


@dataclass(frozen=True, slots=True)
class PrintedRun:
    """A run. Until its values are right, only what was requested is known."""

    key: str | None
    overrides: tuple[str, ...]
    gpu: Gpu
    data_key: str | None = None
    own_data: OwnData | None = None
    """Why it reads its own data; null if a dataset is prepared for it."""
    done: bool | None = None
    copies: int | None = None
    """How often the command requests it."""
    at_rung: int | None = None
    """The rung of its search at which it has stopped; null if it has not."""


@dataclass(frozen=True, slots=True)
class PrintedStep:
    """A follow-up step: a merge or an evaluation."""

    kind: StepKind
    key: str
    run: str
    done: bool


@dataclass(frozen=True, slots=True)
class PrintedDataset:
    key: str
    done: bool
    damage: str
    """Why it is prepared again; otherwise empty."""
    runs: tuple[str, ...]
    """The keys of those that read it."""
    rows: int | None
    """To train on; null until it is prepared."""
    eval_rows: int | None


@dataclass(frozen=True, slots=True)
class PrintedPlan:
    """What `plan --json` prints. If the request is refused, `refused` says why, and null is what was not found out."""

    sweep: str | None
    runs: tuple[PrintedRun, ...]
    refused: str | None
    preflight: PrintedPreflight | None = None
    store: str | None = None
    after: tuple[PrintedStep, ...] = ()
    datasets: tuple[PrintedDataset, ...] = ()
    unresolved: tuple[Input, ...] = ()
    """Names of the hub that could not be resolved."""
    counts: RunCounts | None = None
    models: tuple[HubModel, ...] = ()
    code: tuple[Code, ...] = ()
    """The Python that the runs make a trainer run, besides Axolotl's."""
    command: str | None = None
    """The command line that runs what this one planned."""
    diff: PlanDiff | None = None
    """With --diff."""
    written: tuple[str, ...] = ()
    """The files of --write."""
    cost: PrintedCost | None = None
    left_out: tuple[LeftOut, ...] = ()
    """The points of the sweep that are not run."""
    containers: tuple[Containers, ...] = ()
    """On Modal, those of each kind of GPU, and the runs that they do."""
    disk: PrintedDisk | None = None
    """On Modal: the disk of each container, and what the runs need of it."""
    further: int = 0
    """How many runs may follow at most, if results choose them: search=coordinate and search=tpe."""
    notes: tuple[str, ...] = ()
    """Sentences about the runs, such as why runs that were requested before have other keys now, or which GPUs this
    machine does not have."""


def printed_plan(
    launch: Launch,
    arguments: Sequence[str],
    *,
    schema_asked: bool,
    notes: Sequence[str],
    refused: str = "",
    diff: PlanDiff | None = None,
    written: Sequence[Path] = (),
) -> PrintedPlan:
    """A launch that has been priced. `arguments`: of the command line."""
    assert launch.cost is not None
    plan = launch.plan
    return PrintedPlan(
        sweep=plan.sweep,
        runs=runs_of(plan),
        refused=refused or None,
        preflight=launch.preflight.printed(schema_asked=schema_asked),
        store=str(launch.store.root),
        after=tuple(PrintedStep(one.step.kind, one.step.key, one.step.run, one.done) for one in plan.after),
        datasets=datasets_of(plan, launch.store),
        unresolved=tuple(plan.unresolved),
        counts=plan_inputs.counts(plan),
        models=tuple(plan_inputs.models(plan)),
        code=tuple(plan_inputs.code(plan)),
        command=plan_inputs.command(arguments),
        diff=diff,
        written=tuple(map(str, written)),
        cost=printed_cost(launch.cost),
        left_out=launch.request.left_out,
        containers=tuple(modal_containers(launch.executor, plan)),
        disk=modal_disk(launch.executor, plan),
        further=launch.request.round.further if launch.request.round else 0,
        notes=tuple(notes),
    )


def runs_of(plan: Plan) -> tuple[PrintedRun, ...]:
    return tuple(
        PrintedRun(
            key=planned.run.key,
            overrides=tuple(planned.run.experiment.overrides),
            gpu=planned.run.experiment.gpu,
            data_key=planned.run.data_key,
            own_data=planned.step.own_data,
            done=planned.done,
            copies=planned.copies,
            at_rung=planned.at_rung or None,
        )
        for planned in plan.runs
    )


def requested_runs(experiments: Sequence[Experiment]) -> tuple[PrintedRun, ...]:
    """Runs that could not be identified."""
    return tuple(PrintedRun(None, tuple(one.overrides), one.gpu) for one in experiments)


def datasets_of(plan: Plan, store: Store) -> tuple[PrintedDataset, ...]:
    facts = {one.key: one for one in plan_inputs.datasets(plan, store)}
    return tuple(
        PrintedDataset(one.key, one.done, one.damage, tuple(one.runs), facts[one.key].rows, facts[one.key].eval_rows)
        for one in plan.datasets
    )
