"""Stores and working directories; the trainer environment must exist."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.oneshot.tasks import index_in
from modal_app.store.flock import lock
from modal_app.store.layout import Store
from runner.environment import trainer_environment
from tests.end_to_end.axosweep import TRAINED_ONCE, Axosweep, kill_all
from tests.end_to_end.on_modal import local_modal, with_axolotl
from tests.modal_server import ModalServer


@pytest.fixture(scope="session", autouse=True)
def trainer() -> Path:
    """Fails, and does not skip, where the trainer environment is missing: `make test` builds it first."""
    return trainer_environment.find()


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Axosweep]:
    """A store and a working directory of the test's own. Preloaded trainers end with their commands."""
    (tmp_path / "work").mkdir()
    command = Axosweep(Store(tmp_path / "store"), tmp_path / "work")
    yield command
    kill_all(command.processes())


@pytest.fixture(scope="session")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Axosweep]:
    """One place for many tests, one after the other, since a preloaded trainer belongs to a store, and importing
    Axolotl takes longer than most tests."""
    place = tmp_path_factory.mktemp("waiting")
    for name in ("work", "store"):
        (place / name).mkdir()
    command = Axosweep(Store(place / "store"), place / "work").waiting()
    yield command
    kill_all(command.processes())


@pytest.fixture
def axosweep(waiting: Axosweep) -> Iterator[Axosweep]:
    """An empty store and working directory, in which a preloaded trainer may wait."""
    waiting.empty()
    yield waiting
    kill_all(waiting.left_behind())


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a sweep of two finished runs, the second the better one: two of the shipped grid,
    with one epoch. It is trained once for all of pytest's processes, and copied."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    original = shared / "trained-once"
    with (shared / "trained-once.lock").open("w") as turn:
        lock(turn.fileno())
        if not original.exists():
            _train_two_runs(tmp_path_factory.mktemp("training")).rename(original)
    return original


@pytest.fixture(scope="session")
def trained(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Axosweep]:
    """That sweep, with a preloaded trainer. Many tests use it, so none removes anything."""
    place = tmp_path_factory.mktemp("trained")
    (place / "work").mkdir()
    shutil.copytree(trained_once, place / "store", symlinks=True)
    command = Axosweep(Store(place / "store"), place / "work").waiting()
    yield command
    kill_all(command.processes())


def _train_two_runs(place: Path) -> Path:
    """The store of these runs. Their rows are tokenized in as many processes as a user's. The store also has the index
    of the lm-evaluation-harness's task files, which take seconds to read."""
    command = Axosweep(Store(place / "store"), place, {"AXOLOTL_DATASET_NUM_PROC": ""})
    done = command.run("-m", *TRAINED_ONCE)
    assert done.returncode == 0, done.stderr
    command.run("eval", "--tasks", "no_such_task")
    assert index_in(command.store).exists()
    return command.store.root


@pytest.fixture
def server() -> Iterator[ModalServer]:
    """The local Modal, with a container Python that has Axolotl."""
    with local_modal(with_axolotl()) as server:
        yield server


@pytest.fixture
def on_modal(alone: Axosweep, server: ModalServer) -> Axosweep:
    return Axosweep(alone.store, alone.folder, server.environment())
