"""A preloaded trainer with a stand-in for Axolotl's Python, and a store of its own, for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from tests.modal_app.hollow_trainer import make_store, make_trainer, serving
from tests.modal_app.steps import Warm


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_trainer(tmp_path_factory.mktemp("hollow") / "trainer")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


@pytest.fixture
def warm(python: Path, store: Store) -> Iterator[Warm]:
    with serving(python, store) as server:
        yield server
