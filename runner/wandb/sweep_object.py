"""The sweep object of W&B that a launch attaches its runs to: made once, and kept in the sweep's folder.

What talks to W&B is a process of its own (runner.wandb.sweep_process): this one knows no W&B.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from modal_app.store.layout import Store
from modal_app.store.read_json import read_json
from modal_app.store.redact import redacted
from modal_app.store.step import write_atomically
from runner.types import Plan, PlannedRun
from runner.wandb.messages import WantedObject

FILE = "wandb_sweep.json"
"""In the sweep's folder: W&B's ids, by entity and project."""
NOTHING_STARTED = "Nothing was started; without tracking.sweep_object the runs need no sweep object."
LONGEST_S = 120.0


def with_sweep_objects(plan: Plan, store: Store) -> Plan:
    """The plan with W&B's id of the sweep object in each pending run that asks for one, made where there is none yet.

    The plan as it is when none asks, and for a run alone: nothing is swept. Raises SweepError without a key for W&B,
    and when W&B does not make it.
    """
    wanting = [one for one in plan.pending if one.run.experiment.tracking.sweep_object and one.step.tracking.params]
    if not wanting:
        return plan
    from runner.wandb.ask import refuse_unreachable  # late: most sweeps ask for none

    path = store.sweeps / plan.sweep / FILE
    made: dict[str, str] = dict(read_json(path))
    for planned in wanting:
        if _place(planned) in made:
            continue
        refuse_unreachable("Making W&B's sweep object", NOTHING_STARTED)
        made[_place(planned)] = _make(plan, planned)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(made, indent=1))
    ids = {one.run.key: made[_place(one)] for one in wanting}
    return replace(plan, runs=tuple(_attached(one, ids.get(one.run.key, "")) for one in plan.runs))


def swept(params: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The swept keys with their values, each once, in the order asked; no secret among them.

    >>> swept([{"lora_r": 8, "seed": 1}, {"lora_r": 16, "seed": 1}])
    {'lora_r': [8, 16], 'seed': [1]}
    """
    found: dict[str, dict[str, Any]] = {}
    for one in params:
        for key, value in redacted(one).items():
            found.setdefault(key, {})[json.dumps(value, sort_keys=True)] = value
    return {key: list(values.values()) for key, values in found.items()}


def _place(planned: PlannedRun) -> str:
    """Where in W&B, as its addresses begin; an entity that is not named is the key's own."""
    tracking = planned.step.tracking
    return f"{tracking.entity or ''}/{tracking.project}"


def _make(plan: Plan, planned: PlannedRun) -> str:
    from runner.wandb.ask import ask

    tracking = planned.step.tracking
    parameters = swept([one.step.tracking.params for one in plan.runs])
    wanted = WantedObject(plan.sweep, tracking.project, tracking.entity or "", parameters)
    failed = f"W&B did not make the sweep object; what it said stands above. {NOTHING_STARTED}"
    made: str = ask(
        "runner.wandb.sweep_process", asdict(wanted), failed=failed, otherwise=NOTHING_STARTED, timeout_s=LONGEST_S
    )
    return made


def _attached(planned: PlannedRun, made: str) -> PlannedRun:
    if not made:
        return planned
    step = planned.step
    return replace(planned, step=replace(step, tracking=replace(step.tracking, sweep_object=made)))
