"""plan(): what a request would run, what is wrong with it, and what it would cost, as values."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.api import application
from runner.api.arguments import COMPLETION, HELP, MULTIRUN, Arguments
from runner.compare.params import params_of
from runner.config.overrides import written
from runner.cost.types import Range
from runner.errors import SweepError
from runner.estimate.types import RunCost
from runner.executors.choose import missing_gpus, validator_at_hand
from runner.launch.budget import over_budget
from runner.launch.identify import identify, resolve
from runner.launch.plan import plan as make_plan
from runner.launch.plan_notes import plan_notes
from runner.launch.price import price
from runner.launch.schema import ask_schema, refusal_of
from runner.launch.sweep import unresolved_text
from runner.launch.types import Launch
from runner.preflight.findings import Finding
from runner.request import LeftOut, Request
from runner.types import Experiment, Run, RunResult


@dataclass(frozen=True, slots=True)
class PlannedRun:
    key: str | None
    """None for a run that is refused for a wrong value, so that nothing identifies it."""
    data_key: str | None
    """Of its dataset; None like `key`."""
    params: Mapping[str, Any]
    """What differs between the planned runs."""
    overrides: tuple[str, ...]
    """What was requested beyond the defaults."""
    gpu: str
    """`2 x h100`, or `1 x cpu`: kind and number of its processes."""
    config: Mapping[str, Any]
    """Axolotl's."""
    finished: bool
    """It was trained before, so a launch would not train it again."""
    findings: tuple[Finding, ...]
    """What is wrong with it, or worth knowing."""
    seconds: Range | None
    """The time that it would take; None if it is finished, or if that is unknown."""
    dollars: Range | None
    """US dollars; None if nothing would be rented, or if that is unknown."""


@dataclass(frozen=True, slots=True)
class PlannedSweep:
    id: str
    """The sweep's id, or its name if it is refused."""
    runs: tuple[PlannedRun, ...]
    refused: str | None
    """Why a launch would be refused, for people; None if it would start."""
    seconds: Range | None
    """Until all runs have ended; None if unknown."""
    dollars: Range | None
    """For all runs and for preparing their data; None if nothing would be rented, or if that is unknown."""
    left_out: tuple[LeftOut, ...] = ()
    """The points of the sweep that are not run, and why."""
    further: int = 0
    """How many runs may follow these at most, if results choose them: search=coordinate and search=tpe."""
    notes: tuple[str, ...] = ()
    """Sentences about the runs, such as why runs that were requested before have other keys now. Empty if the sweep is
    refused for a wrong value."""


def plan(*overrides: str, store: str | None = None) -> PlannedSweep:
    """What `axosweep -m OVERRIDES` would run. Starts nothing. `store`: the folder of results; by default AXOSWEEP_STORE
    or ./out. The flags --zip and --exclude are words of their own: `plan(..., "--zip", "lora_r,lora_alpha")`.

    Raises SweepError for a request that cannot be composed. One that preflight refuses is a value, with `refused`.
    """
    planned: list[PlannedSweep] = []

    def described(experiments: list[Experiment], request: Request) -> list[RunResult]:
        refuse_further(planned)
        planned.append(_planned(experiments, request))
        return []

    application.run([*request_words(overrides, store), "action=plan"], described, refuse_pages)
    return planned[-1]


def refuse_further(sweeps: Sequence[object]) -> None:
    """Raises SweepError if there is a sweep already: only another sweeper than axosweep's makes several."""
    if sweeps:
        raise SweepError(
            "This sweeper makes several sweeps, but axosweep.plan and axosweep.launch return one. Leave out "
            "hydra/sweeper=, or use the command line."
        )


def request_words(overrides: Sequence[str], store: str | None) -> list[str]:
    """The words of a command line for these overrides, of which any may be swept."""
    return ["-m", *overrides, *([f"store={written(str(store))}"] if store is not None else []), "json=true"]


def refuse_pages(args: Arguments) -> None:
    """Raises SweepError for flags that print something instead of running anything."""
    pages = (*HELP, *COMPLETION, "--version")
    if args.shows_only or any(flag in pages for flag in args.flags):
        flags = " ".join(flag for flag in args.flags if flag not in MULTIRUN)
        raise SweepError(f"{flags} prints something and runs nothing. It is for the command line only.")


def _planned(experiments: Sequence[Experiment], request: Request) -> PlannedSweep:
    launch = resolve(experiments, request)
    validator = validator_at_hand(launch.local_store)
    if launch.preflight.blocked:
        ask_schema(launch, validator, launch.experiments)
        refusal = launch.preflight.refusal()
        return PlannedSweep(request.name, _runs(launch), refusal, None, None, request.left_out)
    launch = price(make_plan(identify(launch)))
    ask_schema(launch, validator)
    assert launch.cost is not None
    refused = refusal_of(launch) or over_budget(launch.cost, request) or unresolved_text(launch.plan)
    cost, further = launch.cost, request.round.further if request.round else 0
    return PlannedSweep(
        launch.plan.sweep,
        _runs(launch),
        refused or None,
        cost.wall,
        cost.dollars,
        request.left_out,
        further,
        notes=tuple(filter(None, [*plan_notes(launch), missing_gpus(launch.executor, launch.plan)])),
    )


def _runs(launch: Launch) -> tuple[PlannedRun, ...]:
    """One for each requested run, in order."""
    found: list[list[Finding]] = [[] for _ in launch.experiments]
    for one in launch.preflight.findings():
        for number in one.runs:
            found[number].append(one.finding)
    done = {planned.run.key for planned in launch.plan.runs if planned.done}
    costs = {one.key: one for one in launch.cost.runs} if launch.cost else {}
    params = params_of(launch.experiments)
    runs = launch.runs or [None] * len(launch.experiments)
    return tuple(
        _run(experiment, varied, tuple(findings), run, costs, done)
        for experiment, varied, findings, run in zip(launch.experiments, params, found, runs, strict=True)
    )


def _run(
    experiment: Experiment,
    params: Mapping[str, Any],
    findings: tuple[Finding, ...],
    run: Run | None,
    costs: Mapping[str, RunCost],
    done: Collection[str],
) -> PlannedRun:
    gpu, cost = experiment.gpu, costs.get(run.key) if run else None
    return PlannedRun(
        key=run.key if run else None,
        data_key=run.data_key if run else None,
        params=dict(params),
        overrides=experiment.overrides,
        gpu=f"{gpu.count} x {gpu.type}",
        config=dict(experiment.axolotl),
        finished=run is not None and run.key in done,
        findings=findings,
        seconds=cost.prediction.seconds if cost and cost.prediction else None,
        dollars=cost.dollars if cost else None,
    )
