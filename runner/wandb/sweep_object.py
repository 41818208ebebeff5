"""The sweep object of W&B that a launch attaches its runs to: created once, and stored in the sweep's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.redact import redacted
from modal_app.store.step import write_atomically
from runner.types import Plan, PlannedRun

FILE = "wandb_sweep.json"
"""The file in the sweep's folder with W&B's ids, by entity and project."""
ADVICE = "Nothing was started; without tracking.sweep_object, the runs need no sweep object."
TIMEOUT_S = 120.0


def with_sweep_objects(plan: Plan, store: Store) -> Plan:
    """The plan with W&B's id of the sweep object in each pending run that requests one. It is created if there is none.

    The plan is unchanged if no run requests one, and for a single run, which sweeps nothing. Raises SweepError without
    a key for W&B, and when W&B does not create it.
    """
    attached = [one for one in plan.pending if one.run.experiment.tracking.sweep_object and one.step.tracking.params]
    if not attached:
        return plan
    path = store.sweeps / plan.sweep / FILE
    ids: dict[str, str] = dict(read_json(path))
    for planned in attached:
        if _place(planned) in ids:
            continue
        ids[_place(planned)] = _create(plan, planned)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(ids, indent=1))
    by_run = {one.run.key: ids[_place(one)] for one in attached}
    return replace(plan, runs=tuple(_attach(one, by_run.get(one.run.key, "")) for one in plan.runs))


def swept(params: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The swept keys with their values, each once, in the order of the runs, without secrets.

    >>> swept([{"lora_r": 8, "seed": 1}, {"lora_r": 16, "seed": 1}])
    {'lora_r': [8, 16], 'seed': [1]}
    """
    found: dict[str, dict[str, Any]] = {}
    for one in params:
        for key, value in redacted(one).items():
            found.setdefault(key, {})[json.dumps(value, sort_keys=True)] = value
    return {key: list(values.values()) for key, values in found.items()}


def _place(planned: PlannedRun) -> str:
    """Entity and project, as W&B's addresses begin. Without an entity, W&B uses the default one of the key."""
    tracking = planned.step.tracking
    return f"{tracking.entity or ''}/{tracking.project}"


def _create(plan: Plan, planned: PlannedRun) -> str:
    from runner.wandb.call import call, check_reachable  # imported late: most sweeps need none
    from runner.wandb.messages import SweepObjectRequest, SweepObjectResponse

    check_reachable("Creating W&B's sweep object", ADVICE)
    tracking = planned.step.tracking
    parameters = swept([one.step.tracking.params for one in plan.runs])
    request = SweepObjectRequest(plan.sweep, tracking.project, tracking.entity or "", parameters)
    failed = f"W&B did not create the sweep object; its error is printed above. {ADVICE}"
    return call(request, SweepObjectResponse, failed=failed, advice=ADVICE, timeout_s=TIMEOUT_S).id


def _attach(planned: PlannedRun, sweep_object: str) -> PlannedRun:
    if not sweep_object:
        return planned
    step = planned.step
    return replace(planned, step=replace(step, tracking=replace(step.tracking, sweep_object=sweep_object)))
