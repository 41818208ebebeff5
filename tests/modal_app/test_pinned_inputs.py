"""Steps whose base model is edited before they load it, and while they work with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from modal_app.store import pins
from modal_app.store.content import FileState, files_below, folder_sha256
from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, Step, StepKind
from runner.config.shipped import shipped_root
from tests.modal_app.steps import CONFIG, MODEL, SLOWER, Warm, outcome, preprocess_step, train_step, wait_for_step
from tests.waiting import wait_until

pytestmark = pytest.mark.slow
WEIGHTS = "model.safetensors"


def linked(store: Store, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A user's model to which the store has a link, and a config that trains it on the shared dataset."""
    model = Path(shutil.copytree(shipped_root() / "tiny" / "model", tmp_path / "model"))
    (model / "README.md").write_text(str(tmp_path))  # a content of its own
    states = {path.name: FileState.of(path).read(path) for path in files_below(model)}
    target = store.inputs / folder_sha256({name: one.sha256 for name, one in states.items()})[:16]
    target.symlink_to(model)
    pins.write_note(target, states)
    return model, {"base_model": f"inputs/{target.name}", "tokenizer_config": MODEL}


def edit(weights: Path) -> None:
    """Overwrite in place, as `cp` does: the same size, the same inode."""
    size = weights.stat().st_size
    with weights.open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


def refused(store: Store, step: Step, weights: Path) -> None:
    ended = outcome(store, step)
    assert ended.reason is FailureReason.DATA
    assert ended.message.startswith(f"{weights} changed after the run was planned. Restore the old content")
    assert not store.folder(step.kind, step.key).done.exists()


def test_no_step_loads_a_model_that_was_edited_after_it_was_planned(warm: Warm, store: Store, tmp_path: Path) -> None:
    model, own = linked(store, tmp_path)
    (store.inputs / "prompts.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}))
    edit(model / WEIGHTS)
    options = {"prompts": "inputs/prompts.jsonl"}
    steps = [train_step("edited-before", **own), preprocess_step("edited-before", **own)]
    steps += [
        Step(kind, "base/edited-before", CONFIG | own, "data", options=options)
        for kind in (StepKind.MERGE, StepKind.INFER, StepKind.EVALUATE)
    ]
    for step in steps:
        assert warm.run(step) == 1
        refused(store, step, model / WEIGHTS)


def test_a_model_that_is_replaced_while_it_is_loaded_is_noticed(warm: Warm, store: Store, tmp_path: Path) -> None:
    model, own = linked(store, tmp_path)
    other = shutil.copyfile(model / WEIGHTS, tmp_path / "other")
    edit(other)
    step = train_step("replaced", **own)
    warm.begin(step)
    attempt = store.folder(step.kind, step.key).attempt(1)
    wait_until(attempt.config.exists, "its config, which is written after the first check")
    other.replace(model / WEIGHTS)
    assert warm.end(step) == 1
    refused(store, step, model / WEIGHTS)


def test_an_edit_of_weights_that_a_run_has_mapped_fails_it_and_no_checkpoint_of_it_counts(
    warm: Warm, store: Store, tmp_path: Path
) -> None:
    model, own = linked(store, tmp_path)
    step = train_step("edited-while", **own, **SLOWER, max_steps=60, save_steps=30)
    warm.begin(step)
    wait_for_step(store, step, 5)
    edit(model / WEIGHTS)
    assert warm.end(step) == 1
    refused(store, step, model / WEIGHTS)
    assert not list(store.folder(step.kind, step.key).model.glob("checkpoint-*/complete.json"))
