"""A store with runs that have left checkpoints, as the recorder leaves them, small enough to be written by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modal_app.store import checkpoints
from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from runner.types import Run
from tests.runner import builders

AXOLOTL: Mapping[str, Any] = {
    "adapter": "lora",
    "lora_r": 8,
    "optimizer": "adamw_torch",
    "micro_batch_size": 4,
    "learning_rate": 1e-3,
    "max_steps": 100,
    "seed": 42,
}


def source(
    store: Store,
    *steps: int,
    status: OutcomeStatus = OutcomeStatus.SUCCEEDED,
    config: Mapping[str, Any] = AXOLOTL,
    **axolotl: Any,
) -> Run:
    """A run with a complete checkpoint of each step."""
    one = builders.run({**config, **axolotl})
    builders.open_sweep(store, [one])
    folder = store.folder(StepKind.TRAIN, one.key)
    folder.identity.write_text(json.dumps(json.loads(folder.identity.read_text()) | {"data_key": one.data_key}))
    builders.finish(store, StepKind.TRAIN, one.key, status)
    for step in steps:
        checkpoint(folder.model, step)
    return one


def checkpoint(model: Path, step: int, *, weights: str = "weights", complete: bool = True) -> Path:
    path = model / f"checkpoint-{step}"
    path.mkdir(parents=True)
    control = {"args": {"should_training_stop": True, "should_save": True}, "attributes": {}}
    state = {
        "global_step": step,
        "max_steps": step,
        "log_history": [{"loss": 1.0}],
        "best_metric": 0.5,
        "stateful_callbacks": {"TrainerControl": control, "EarlyStoppingCallback": {"attributes": {"patience": 2}}},
    }
    files = {"adapter_model.safetensors": weights, "adapter_config.json": "{}", "optimizer.pt": f"moments {step}"}
    files |= {"rng_state.pth": "random", "scheduler.pt": "schedule", "trainer_state.json": json.dumps(state)}
    files |= {"training_args.bin": f"{model} pickled", "tokens_state.json": '{"total": 9}', "README.md": str(model)}
    for name, content in files.items():
        (path / name).write_text(content)
    if complete:
        checkpoints.mark_complete(path, {"since": step - 1, "loss": 0.25})
    return path
