"""A store with a finished run, as a worker leaves it, without any training."""

from __future__ import annotations

import json
import random
from pathlib import Path

from modal_app.store import checkpoints
from modal_app.store.layout import DEBUG_LOG, StepFolder, Store
from modal_app.store.manifest import listed_files
from modal_app.store.step import StepKind, write_atomically
from runner.types import Run
from tests.runner.builders import finish, finish_run, open_sweep, run


def content(name: str, size: int) -> bytes:
    """Bytes that are always the same for a name, and differ between names."""
    return random.Random(name).randbytes(size)


def finished_run(store: Store, *, rate: float = 0.1, weights: int = 300_000, steps: tuple[int, ...] = (10, 20)) -> Run:
    """One run of a sweep of its own: adapter, checkpoints, logs, a prepared dataset."""
    one = run({"learning_rate": rate, "base_model": "tiny"})
    open_sweep(store, [one], "files")
    finish_run(store, one, {0: 2.0, 20: 1.0})
    make_files(store, one, weights, steps)
    return one


def make_files(store: Store, one: Run, weights: int = 300_000, steps: tuple[int, ...] = (10, 20)) -> None:
    folder = store.folder(StepKind.TRAIN, one.key)
    write_model(folder, one.key, weights)
    write_atomically(folder.config, "learning_rate: 0.1\n")
    for step in steps:
        write_checkpoint(folder, step)
    folder.attempt(1).log.write_text("what Axolotl said\n")
    rows = store.prepared_dataset(one.data_key) / "0123"
    rows.mkdir(exist_ok=True)
    (rows / "data.arrow").write_bytes(content("rows", 50_000))
    manifest = json.loads(store.manifest(one.data_key).read_text())
    write_atomically(
        store.manifest(one.data_key), json.dumps(manifest | {"files": listed_files(rows.parent, without=("manifest",))})
    )


def write_model(folder: StepFolder, key: str, weights: int) -> None:
    folder.model.mkdir(exist_ok=True)
    (folder.model / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (folder.model / "adapter_model.safetensors").write_bytes(content(key, weights))
    (folder.model / DEBUG_LOG).write_text("what Axolotl said of itself\n")
    listed = listed_files(folder.model, without=(checkpoints.PREFIX, checkpoints.ASIDE, DEBUG_LOG))
    write_atomically(folder.manifest, json.dumps({"files": listed, "of": key}))


def write_checkpoint(folder: StepFolder, step: int, *, whole: bool = True) -> Path:
    checkpoint = folder.model / f"{checkpoints.PREFIX}{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(content(f"optimizer {step}", 40_000))
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    if whole:
        checkpoints.mark_complete(checkpoint, {})
    return checkpoint


def merge(store: Store, one: Run, own: str, size: int = 100_000) -> StepFolder:
    """A merged model of a run, as its step leaves it."""
    key = f"{one.key}/{own}"
    finish(store, StepKind.MERGE, key)
    folder = store.folder(StepKind.MERGE, key)
    folder.model.mkdir()
    (folder.model / "model.safetensors").write_bytes(content(own, size))
    write_atomically(folder.manifest, json.dumps({"files": listed_files(folder.model), "of": one.key}))
    return folder
