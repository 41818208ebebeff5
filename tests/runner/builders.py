"""Small values that tests create: experiments, runs, and what a worker leaves in a store's folders."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from modal_app.store.claim import this_process
from modal_app.store.layout import Attempt, Store
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind, write_atomically
from runner.keys.identity import identify_run
from runner.launch.plan import make_plan
from runner.store.ledger import Ledger
from runner.types import DataChoice, ExecutorChoice, Experiment, Gpu, Input, Plan, Run, TrackingChoice

LOCK = "lock-of-the-trainer"


def experiment(
    axolotl: Mapping[str, Any] | None = None,
    *,
    gpu: Gpu | None = None,
    data: DataChoice | None = None,
    tracking: TrackingChoice | None = None,
    executor: ExecutorChoice | None = None,
    overrides: Sequence[str] = (),
) -> Experiment:
    return Experiment(
        overrides=tuple(overrides),
        axolotl=dict(axolotl or {}),
        gpu=gpu or Gpu("cpu", 1),
        data=data or DataChoice(),
        tracking=tracking or TrackingChoice("offline", "axosweep"),
        executor=executor or ExecutorChoice("local"),
    )


def run(axolotl: Mapping[str, Any] | None = None, *, inputs: Sequence[Input] = (), **rest: Any) -> Run:
    return identify_run(experiment(axolotl, **rest), inputs, trainer_lock=LOCK)


def plan(runs: Sequence[Run], store: Store, name: str = "sweep") -> Plan:
    return make_plan(runs, name, lambda kind, key: store.folder(kind, key).done.exists())


def begin_attempt(store: Store, kind: StepKind, key: str) -> Attempt:
    """What a worker leaves when it begins. The caller has to lock the claim if the step should look running."""
    folder = store.folder(kind, key)
    earlier = folder.attempts()
    attempt = folder.attempt(earlier[-1].number + 1 if earlier else 1)
    attempt.path.mkdir(parents=True)
    write_atomically(attempt.started, json.dumps(asdict(this_process("sweep"))))
    return attempt


def end_attempt(
    store: Store,
    kind: StepKind,
    key: str,
    attempt: Attempt,
    status: OutcomeStatus = OutcomeStatus.SUCCEEDED,
    *,
    reason: FailureReason | None = None,
    message: str = "",
    manifest: Mapping[str, Any] | None = None,
) -> None:
    """What a worker leaves when it ends: the outcome, and on success the step's `done` file."""
    outcome = Outcome(status, attempt.number, 1000.0, 1002.5, reason, message)
    if status is OutcomeStatus.SUCCEEDED:
        done = store.folder(kind, key).done
        done.parent.mkdir(parents=True, exist_ok=True)
        described = {"attempt": attempt.number, "started_at": 1000.0, "finished_at": 1002.5, **(manifest or {})}
        write_atomically(done, outcome.to_json() if kind is not StepKind.PREPROCESS else json.dumps(described))
    write_atomically(attempt.result, outcome.to_json())


def finish(
    store: Store, kind: StepKind, key: str, status: OutcomeStatus = OutcomeStatus.SUCCEEDED, **rest: Any
) -> Attempt:
    attempt = begin_attempt(store, kind, key)
    end_attempt(store, kind, key, attempt, status, **rest)
    return attempt


def finish_run(store: Store, one: Run, losses: Mapping[int, float], *, eval_fingerprint: str = "rows") -> None:
    """A successful run, its metrics, and the dataset that it read."""
    log_losses(store, one, losses)
    finish(store, StepKind.TRAIN, one.key)
    finish(store, StepKind.PREPROCESS, one.data_key, manifest={"eval_fingerprint": eval_fingerprint, "rows": 7})


def log_losses(store: Store, one: Run, losses: Mapping[int, float], name: str = "eval_loss") -> None:
    folder = store.folder(StepKind.TRAIN, one.key)
    folder.path.mkdir(parents=True, exist_ok=True)
    with folder.metrics.open("a", encoding="utf-8") as file:
        for step, loss in losses.items():
            file.write(json.dumps({"step": step, "attempt": 1, "time": 1.0, name: loss}) + "\n")


def open_sweep(store: Store, runs: Sequence[Run], name: str = "sweep") -> Plan:
    """A planned and launched sweep: plan.json, and each run's folder with the request."""
    planned = plan(runs, store, name)
    Ledger(store, planned.sweep).open(planned, "axosweep -m")
    for one in runs:
        folder = store.folder(StepKind.TRAIN, one.key)
        folder.path.mkdir(parents=True, exist_ok=True)
        requested = one.experiment
        described = {
            "axolotl": dict(requested.axolotl),
            "gpu": {"type": requested.gpu.type, "count": requested.gpu.count},
            "data": {"limit": requested.data.limit, "seed": requested.data.seed},
        }
        write_atomically(folder.identity, json.dumps(described))
    return planned
