"""ReLoRA on the tiny model: its result is a complete model, also after a kill and on two ranks."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import Step, StepKind
from tests.modal_app.steps import Warm, losses, outcome, train_step

pytestmark = pytest.mark.slow
RELORA: dict[str, Any] = {
    "relora": True,
    "jagged_restart_steps": 6,
    "relora_prune_method": "reset",
    "save_steps": 3,
    "save_total_limit": 9,
}


@pytest.fixture(scope="session")
def merged(warm: Warm, store: Store) -> Step:
    step = train_step("relora", **RELORA)
    assert warm.run(step) == 0, outcome(store, step).message
    return step


def test_it_leaves_a_complete_model_and_no_adapter(store: Store, merged: Step) -> None:
    folder = store.folder(StepKind.TRAIN, merged.key)
    listed = json.loads(folder.manifest.read_text())["files"]
    assert {"model.safetensors", "config.json"} <= listed.keys()
    assert not [name for name in listed if "adapter" in name]
    assert not (folder.model / "adapter_config.json").exists()
    checkpoints = {path.name for path in folder.model.glob("*checkpoint-*")}
    assert checkpoints == {f"checkpoint-{step}" for step in (3, 6, 9, 12, 15, 18, 20)}
    assert losses(store, merged)[20, "eval_loss"] < losses(store, merged)[0, "eval_loss"]


@pytest.mark.parametrize("at", [12, 15], ids=["at a restart", "between two"])
def test_it_resumes_from_any_checkpoint_to_an_equal_model(warm: Warm, store: Store, merged: Step, at: int) -> None:
    step = train_step(f"relora-from-{at}", **RELORA)
    source = store.folder(StepKind.TRAIN, merged.key).model / f"checkpoint-{at}"
    shutil.copytree(source, store.folder(StepKind.TRAIN, step.key).model / source.name)
    assert warm.run(step) == 0, outcome(store, step).message
    assert outcome(store, step).facts["resumed_from"] == at
    assert _weights(store, step) == _weights(store, merged)
    later = {key: loss for key, loss in losses(store, merged).items() if key[0] > at}
    assert losses(store, step) == later


def test_two_ranks_leave_a_complete_model(warm: Warm, store: Store) -> None:
    step = train_step("relora-ranks", processes=2, micro_batch_size=4, **RELORA)
    assert warm.run(step) == 0, outcome(store, step).message
    assert _weights(store, step)
    assert losses(store, step)[20, "eval_loss"] < losses(store, step)[0, "eval_loss"]


def _weights(store: Store, step: Step) -> str:
    return hashlib.sha256((store.folder(StepKind.TRAIN, step.key).model / "model.safetensors").read_bytes()).hexdigest()
