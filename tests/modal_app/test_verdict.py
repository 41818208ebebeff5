"""The verdict on the result of a training, with real files and without a training: it does not depend on a clock."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from modal_app.process.failures import StepFailed
from modal_app.process.stop import Stopped
from modal_app.steps import train
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.step import Step, StepKind
from tests.runner.checkpointed import checkpoint

STEP = Step(StepKind.TRAIN, "run", {"adapter": "lora"}, "data")
ENDED = {
    "global_step": 4, "max_steps": 4, "ended": True, "early_stopped": False, "world_size": 1, "threads": 1,
    "phases": {}, "cpu": {}, "resumed_from": 0,
}  # fmt: skip


@pytest.fixture
def prepared(tmp_path: Path) -> tuple[StepFolder, Attempt]:
    """A run's folder in which an earlier attempt has left its weights, prepared for the next one."""
    store = Store(tmp_path)
    manifest = store.manifest(STEP.data_key)
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"attempt": 1, "started_at": 0.0, "finished_at": 1.0}))
    folder = store.folder(STEP.kind, STEP.key)
    attempt = folder.attempt(2)
    attempt.path.mkdir(parents=True)
    folder.model.mkdir()
    weights(folder)
    train.prepare(STEP, store, folder, attempt)
    attempt.train_state.write_text(json.dumps(ENDED))
    return folder, attempt


def weights(folder: StepFolder) -> Path:
    path = folder.model / "adapter_model.safetensors"
    path.write_bytes(b"weights")
    return path


def test_a_run_whose_clock_was_set_back_ten_minutes_while_it_trained_has_succeeded(
    prepared: tuple[StepFolder, Attempt],
) -> None:
    folder, attempt = prepared
    os.utime(weights(folder), (time.time() - 600,) * 2)
    assert train.verdict(STEP, folder, attempt)["step"] == 4


def test_weights_that_an_earlier_attempt_has_left_are_not_a_success(prepared: tuple[StepFolder, Attempt]) -> None:
    folder, attempt = prepared
    with pytest.raises(StepFailed, match="left no weights"):
        train.verdict(STEP, folder, attempt)


@pytest.mark.parametrize("fp16", [True, False])
def test_an_infinite_gradient_fails_a_run_unless_its_scaler_has_skipped_the_step(
    prepared: tuple[StepFolder, Attempt], fp16: bool
) -> None:
    folder, attempt = prepared
    weights(folder)
    folder.metrics.write_text('{"attempt": 2, "step": 4, "loss": 1.5, "grad_norm": null}')
    step = replace(STEP, config={**STEP.config, "fp16": fp16})
    if fp16:
        assert train.verdict(step, folder, attempt)["step"] == 4
    else:
        with pytest.raises(StepFailed, match="grad_norm became NaN or infinite by step 4 of 4"):
            train.verdict(step, folder, attempt)


def test_a_stop_says_that_a_checkpoint_is_saved_only_if_it_is(prepared: tuple[StepFolder, Attempt]) -> None:
    folder, attempt = prepared
    attempt.train_state.write_text(json.dumps({**ENDED, "global_step": 2, "stopped": True}))
    with pytest.raises(Stopped, match="stopped at step 2 of 4; no run can resume from there"):
        train.verdict(STEP, folder, attempt)
    checkpoint(folder.model, 2)
    with pytest.raises(Stopped, match="stopped at step 2 of 4; a checkpoint is saved"):
        train.verdict(STEP, folder, attempt)
