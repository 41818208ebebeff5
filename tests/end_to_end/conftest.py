"""A store and a working directory per test; the trainer environment must be there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.layout import Store
from runner import trainer_environment
from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import local_modal, with_axolotl
from tests.modal_server import ModalServer


@pytest.fixture(scope="session", autouse=True)
def trainer() -> Path:
    """Fails, and does not skip, where the trainer environment is missing: `make test` builds it first."""
    return trainer_environment.find()


@pytest.fixture
def axosweep(tmp_path: Path) -> Iterator[Axosweep]:
    folder = tmp_path / "work"
    folder.mkdir()
    command = Axosweep(Store(tmp_path / "store"), folder)
    yield command
    for pid in command.processes():
        try:
            kill(pid)
        except ProcessLookupError:
            continue


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Axosweep]:
    """A sweep of two runs that have finished, the second the better one: what comes after is asked of it by many tests,
    so none takes anything away."""
    place = tmp_path_factory.mktemp("trained")
    (place / "work").mkdir()
    command = Axosweep(Store(place / "store"), place / "work")
    done = command.run("-m", "lora=r4,r32", "learning_rate=4e-3", "tracking=disabled")
    assert done.returncode == 0, done.stderr
    yield command
    for pid in command.processes():
        with contextlib.suppress(ProcessLookupError):
            kill(pid)


@pytest.fixture
def server() -> Iterator[ModalServer]:
    """The local Modal, with a container Python that has Axolotl."""
    with local_modal(with_axolotl()) as server:
        yield server


@pytest.fixture
def on_modal(axosweep: Axosweep, server: ModalServer) -> Axosweep:
    return Axosweep(axosweep.store, axosweep.folder, server.environment())
