"""Runs -> plan: what would run, each run once, and what is done already. `make_plan` is pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.state import is_done
from modal_app.store.step import Device, Step, StepKind, Tracking
from modal_app.store.verified import dataset_damage
from runner.compare.params import label, params_of
from runner.config import checkout
from runner.config.sweep_name import within_limit
from runner.executors.choose import check_gpu_caps
from runner.follow_up.stage_steps import with_stages
from runner.keys.identity import preprocess_config, short_hash
from runner.launch.budget import check_budget_options
from runner.launch.notices import check_notify
from runner.launch.rungs import with_rungs
from runner.launch.types import Launch
from runner.types import Experiment, Input, Plan, PlannedDataset, PlannedRun, Run

IsDone = Callable[[StepKind, str], bool]
SWEEP_HASH_LENGTH = 6
LONGEST_NAME = 120
"""W&B's limit for a run's name is 128 characters."""


def plan(launch: Launch) -> Launch:
    """The launch with its plan. Raises SweepError for stages, GPUs or rungs that its runs cannot have."""
    store = launch.store
    new_plan = make_plan(
        launch.runs,
        launch.request.name,
        lambda kind, key: is_done(store.folder(kind, key)),
        checkout.commit(),
        launch.request.note,
        launch.request.sweep,
        launch.request.round.others if launch.request.round else (),
    )
    if launch.on_this_machine:
        new_plan = _with_damage(new_plan, store)
    new_plan = with_rungs(with_stages(new_plan, store), launch.request.search, store)
    planned = replace(launch, plan=new_plan)
    pending = {one.run.key for one in planned.plan.pending}
    planned.preflight.finished = frozenset(n for n, run in enumerate(planned.runs) if run.key not in pending)
    check_budget_options(planned.executor, planned.request)
    check_notify(planned.executor, planned.request)
    check_gpu_caps(planned.executor, planned.plan)
    return planned


def make_plan(
    runs: Sequence[Run],
    name: str,
    is_done: IsDone,
    commit: str = "",
    note: str = "",
    added_to: str | None = None,
    others: Sequence[Experiment] = (),
) -> Plan:
    """Each distinct run and dataset once, in the requested order. For W&B: axosweep's `commit`, and the `note`.
    `added_to`: the id of an earlier sweep that they are added to; by default they are a sweep of their own. `others`:
    experiments from which their names must also distinguish them.

    A dataset that only finished runs read is not prepared again, even when it has been deleted. A run that reads its
    own data has none.
    """
    copies = Counter(run.key for run in runs)
    distinct = {run.key: run for run in reversed(runs)}
    ordered = [distinct[key] for key in dict.fromkeys(run.key for run in runs)]
    sweep = added_to or sweep_id(name, [run.key for run in ordered])
    params = params_of([*(run.experiment for run in ordered), *others])[: len(ordered)]
    planned = tuple(
        PlannedRun(
            run, _train_step(run, sweep, varied, commit, note), is_done(StepKind.TRAIN, run.key), copies[run.key]
        )
        for run, varied in zip(ordered, params, strict=True)
    )
    return Plan(sweep, planned, _datasets(planned, sweep, is_done), _unresolved(ordered))


def sweep_id(name: str, run_keys: Sequence[str]) -> str:
    """The name and a hash of the set of runs: the same question, in any order, is the same sweep.

    >>> sweep_id("lora, rate", ["b", "a"]) == sweep_id("lora, rate", ["a", "b"])
    True
    """
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.") or "sweep"
    return f"{within_limit(slug)}-{short_hash(sorted(run_keys), SWEEP_HASH_LENGTH)}"


def _datasets(planned: Sequence[PlannedRun], sweep: str, is_done: IsDone) -> tuple[PlannedDataset, ...]:
    readers: dict[str, list[PlannedRun]] = {}
    for one in planned:
        if one.step.own_data:
            continue  # nothing is prepared for it
        readers.setdefault(one.run.data_key, []).append(one)
    return tuple(
        PlannedDataset(
            key=key,
            step=_preprocess_step(ones[0].run, sweep),
            done=is_done(StepKind.PREPROCESS, key),
            runs=tuple(one.run.key for one in ones),
        )
        for key, ones in readers.items()
    )


def _with_damage(plan: Plan, store: Store) -> Plan:
    """The plan in which damaged datasets count as not prepared, if runs are about to read them."""
    wanted = {planned.run.data_key for planned in plan.pending}
    damage = {key: dataset_damage(store, key) for key in wanted if store.manifest(key).exists()}
    datasets = tuple(
        replace(one, done=one.done and not damage.get(one.key), damage=damage.get(one.key, "")) for one in plan.datasets
    )
    return replace(plan, datasets=datasets)


def _preprocess_step(run: Run, sweep: str) -> Step:
    return Step(
        kind=StepKind.PREPROCESS,
        key=run.data_key,
        config=preprocess_config(run),
        data_key=run.data_key,
        sweep=sweep,
    )


def _train_step(run: Run, sweep: str, params: Mapping[str, Any], commit: str, note: str) -> Step:
    tracking = run.experiment.tracking
    return Step(
        kind=StepKind.TRAIN,
        key=run.key,
        config=run.config,
        data_key=run.data_key,
        processes=run.experiment.gpu.count,
        device=Device.CPU if run.experiment.gpu.type == "cpu" else Device.CUDA,
        base_model=str(run.experiment.axolotl.get("base_model", "")),
        tracking=Tracking(
            mode=tracking.mode,
            project=tracking.project,
            entity=tracking.entity,
            group=sweep,
            name=(label(params) or " ".join(run.experiment.overrides))[:LONGEST_NAME] or run.key,
            tags=tracking.tags,
            params=params,
            commit=commit,
            note=note,
        ),
        sweep=sweep,
        heals=run.experiment.heals,
    )


def _unresolved(runs: Sequence[Run]) -> tuple[Input, ...]:
    return tuple(dict.fromkeys(found for run in runs for found in run.inputs if found.identity is None))
