from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from modal_app.cloud.job import Job, steps_file
from modal_app.store.layout import STEPS
from modal_app.store.rungs import Rungs
from modal_app.store.step import Device, FailureReason, Outcome, OutcomeStatus, Share, Step, StepKind, Tracking


def test_a_step_survives_the_way_to_the_worker() -> None:
    tracking = Tracking("offline", "project", "team", "group", "lora_r=8", ("a", "b"))
    step = Step(
        StepKind.TRAIN, "run", {"learning_rate": 1e-05}, "data", 2, Device.CUDA, "base", tracking, {"A": "1"}, "s"
    )
    assert Step.from_json(step.to_json()) == step
    assert Step.from_json(json.dumps(json.loads(step.to_json()))) == step


def test_a_call_on_modal_reads_what_a_newer_version_has_written_for_its_sweep(tmp_path: Path) -> None:
    """Each version has functions of its own there, but a launch of the same sweep replaces the file that they read."""
    step = Step(StepKind.TRAIN, "run", {}, "data", share=Share(1.0, 2.0), rungs=Rungs("s/1", (0.5,), 3))
    job = Job("train/run", "s", "app", "train", "claims", "cache", "runs")
    file = json.loads(steps_file({job.name: step}, {job.name: [job]}, [job]))
    newer: dict[str, Any] = {"more": 1}
    for name in ("share", "rungs", "tracking"):
        newer[name] = {**asdict(step)[name], "more": 1}
    file["steps"][job.name] = json.dumps(json.loads(step.to_json()) | newer)
    for one in (*file["waiting"][job.name], *file["halved"]):
        one["more"] = 1
    path = tmp_path / "sweeps" / "s" / STEPS
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(file))
    assert job.read_step(tmp_path) == step
    assert job.read_waiting(tmp_path) == [job]
    assert job.read_halved(tmp_path) == {job.name: job}
    assert Job.from_json(json.dumps(asdict(job) | {"more": 1})) == job


def test_an_outcome_survives_the_way_back() -> None:
    outcome = Outcome(OutcomeStatus.FAILED, 2, 1.0, 3.5, FailureReason.OOM, "full", {"step": 7})
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert outcome.seconds == 2.5
