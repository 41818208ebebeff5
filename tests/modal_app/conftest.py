"""One store with its dataset, and one preloaded trainer, for all slow tests of the worker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from runner.environment import trainer_environment
from tests.modal_app.steps import Warm, make_store, preprocess_step


@pytest.fixture(scope="session")
def trainer() -> Path:
    """The trainer's python; its absence is a failure, and says what to do."""
    return trainer_environment.find()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("modal_app") / "store")


@pytest.fixture(scope="session")
def warm(trainer: Path, store: Store) -> Iterator[Warm]:
    """A preloaded trainer over a store in which the dataset `data` is prepared."""
    warm = Warm.start(trainer, store)
    assert warm.run(preprocess_step()) == 0
    yield warm
    warm.close()
