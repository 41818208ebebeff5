"""W&B does not answer as it should, when a run starts and in a sync: with the real SDK and a faulty server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from modal_app.process.tracking import TrackingRecord
from modal_app.store.layout import Store
from modal_app.store.step import Step, StepKind, Tracking
from runner.types import Run
from tests.forked_command import COMMAND
from tests.runner.builders import finish_run, open_sweep, run
from tests.wandb_server import WandbServer, serve_wandb
from tests.wandb_server.server import Fault

IMPATIENT = {
    "WANDB_HTTP_TIMEOUT": "10",
    "WANDB__GRAPHQL_RETRY_MAX": "1",
    "WANDB__GRAPHQL_RETRY_WAIT_MIN_SECONDS": "0.1",
    "WANDB__GRAPHQL_RETRY_WAIT_MAX_SECONDS": "0.1",
    "WANDB__FILE_STREAM_RETRY_MAX": "1",
}


@pytest.fixture
def server() -> Iterator[WandbServer]:
    with serve_wandb() as server:
        yield server


def axosweep(store: Store, server: WandbServer, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words, "--store", str(store.root)],
        env={**os.environ, **server.environment(), **IMPATIENT},
        cwd=store.root, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def train(store: Store, server: WandbServer, one: Run, sweep: str) -> str:
    tracking = Tracking("online", "axosweep", group=sweep, name="one")
    step = Step(StepKind.TRAIN, one.key, {}, "data", tracking=tracking, sweep=sweep)
    modules = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-P", Path(__file__).with_name("tracked_run_script.py"), store.root, step.to_json()],
        env={**os.environ, **server.environment(), **IMPATIENT, "WANDB_INIT_TIMEOUT": "1", "PYTHONPATH": modules},
        cwd=store.root, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stderr


def texts(done: subprocess.CompletedProcess[str]) -> Mapping[str, str]:
    return {one["key"]: one["said"] for one in json.loads(done.stdout)["runs"]}


@pytest.mark.slow
def test_a_run_goes_offline_and_is_uploaded_later(store: Store, server: WandbServer) -> None:
    """One fault for each of five other runs; none stops the sync of the others."""
    runs = [run({"learning_rate": rate}) for rate in (1e-3, 2e-3, 3e-3, 4e-3, 5e-3)]
    sweep = open_sweep(store, runs, "first").sweep
    for one, fault in zip(runs, (Fault.ERROR, Fault.HTML, Fault.TRUNCATED, Fault.NULL, Fault.REDIRECT), strict=True):
        store.folder(StepKind.TRAIN, one.key).path.mkdir(parents=True, exist_ok=True)
        record = {"id": fault.name.lower(), "group": sweep, "project": "axosweep"}
        store.folder(StepKind.TRAIN, one.key).tracking.write_text(json.dumps(record))
        server.faults[fault.name.lower()] = fault
        finish_run(store, one, {} if one is runs[0] else {0: 1.0, 1: 0.5})
    first = runs[0]

    stderr = train(store, server, first, sweep)
    assert "tracked offline; `axosweep sync` uploads it later (" in stderr
    tracked = TrackingRecord.read(store.folder(StepKind.TRAIN, first.key).tracking)
    assert tracked is not None
    assert "500" in tracked.offline

    failed = axosweep(store, server, "sync", sweep, "--json")
    assert failed.returncode == 1, failed.stderr
    assert "Traceback" not in failed.stderr
    said = texts(failed)
    assert "500" in said[first.key]
    assert all(text.startswith("W&B: ") and text.endswith("; the next sync tries again") for text in said.values())
    assert {one["failed"] for one in json.loads(failed.stdout)["runs"]} == {True}

    server.faults.clear()
    # `wandb sync` leaves this, too, if W&B stops answering in the middle.
    (part,) = store.folder(StepKind.TRAIN, first.key).path.glob("wandb/offline-run-*/run-error.wandb")
    part.with_name(f"{part.name}.syncstate").write_text('{"starting_step":0,"starting_runtime":0}')
    again = open_sweep(store, [first], "again").sweep
    done = axosweep(store, server, "sync", again, "--json")
    assert done.returncode == 0, done.stderr
    assert texts(done)[first.key].startswith("1 offline part uploaded")
    assert set(server.runs()["error"].values("train/loss")) == {0, 1}
    assert [one["failed"] for one in json.loads(done.stdout)["runs"]] == [False]
