from __future__ import annotations

import json

from modal_app.store.step import Device, FailureReason, Outcome, OutcomeStatus, Step, StepKind, Tracking


def test_a_step_survives_the_way_to_the_worker() -> None:
    tracking = Tracking("offline", "project", "team", "group", "lora_r=8", ("a", "b"))
    step = Step(
        StepKind.TRAIN, "run", {"learning_rate": 1e-05}, "data", 2, Device.CUDA, "base", tracking, {"A": "1"}, "s"
    )
    assert Step.from_json(step.to_json()) == step
    assert Step.from_json(json.dumps(json.loads(step.to_json()))) == step


def test_an_outcome_survives_the_way_back() -> None:
    outcome = Outcome(OutcomeStatus.FAILED, 2, 1.0, 3.5, FailureReason.OOM, "full", {"step": 7})
    assert Outcome.from_json(outcome.to_json()) == outcome
    assert outcome.seconds == 2.5
