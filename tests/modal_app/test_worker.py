"""The worker around the training: tests without Axolotl run with this Python, in seconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from modal_app.store.claim import claim
from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from tests.modal_app.steps import PACKAGE, make_store, outcome, run_fresh, train_step

HERE = Path(sys.executable)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


def test_a_second_worker_leaves_a_locked_step_alone(store: Store) -> None:
    step = train_step("run")
    with claim(store.folder(StepKind.TRAIN, "run")):
        assert run_fresh(HERE, store, step) == 75
    assert not store.folder(StepKind.TRAIN, "run").attempts()


def test_a_trainer_without_its_dataset_stops_and_says_so(store: Store) -> None:
    step = train_step("run", data_key="missing")
    assert run_fresh(HERE, store, step) == 1
    ended = outcome(store, step)
    assert (ended.status, ended.reason) == (OutcomeStatus.FAILED, FailureReason.DATA)
    assert "the prepared dataset missing is not there" in ended.message
    assert observe(store, StepKind.TRAIN, "run").phase is Phase.FAILED


def test_a_step_that_has_succeeded_is_not_run_again(store: Store) -> None:
    step = train_step("run")
    folder = store.folder(StepKind.TRAIN, "run")
    folder.path.mkdir(parents=True)
    done = {"status": "succeeded", "attempt": 1, "started_at": 0.0, "finished_at": 1.0}
    folder.done.write_text(json.dumps(done | {"reason": None, "message": "", "facts": {}}))
    assert run_fresh(HERE, store, step) == 0
    assert not folder.attempts()


def test_each_attempt_has_a_folder_of_its_own(store: Store) -> None:
    step = train_step("run", data_key="missing")
    for _ in range(2):
        run_fresh(HERE, store, step)
    folder = store.folder(StepKind.TRAIN, "run")
    assert [attempt.number for attempt in folder.attempts()] == [1, 2]
    for attempt in folder.attempts():
        assert (attempt.path / "inputs" / "rows.jsonl").samefile(store.inputs / "rows.jsonl")
        assert "StepFailed" in attempt.log.read_text()
    assert folder.config.exists()


def test_a_worker_started_by_its_path_does_not_import_what_is_next_to_its_package(tmp_path: Path) -> None:
    """In an installed wheel, that folder is the launcher's site-packages, but the trainer has its own."""
    installed = tmp_path / "site-packages"
    installed.mkdir()
    (installed / "modal_app").symlink_to(PACKAGE)
    (installed / "json.py").write_text("raise SystemExit('an import from the neighbourhood')")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for flags in ([], ["-P"]):
        command: list[str | Path] = [sys.executable, *flags, installed / "modal_app" / "run.py", "worker", "--help"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
