"""A fixture of the tests of LocalExecutor."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from tests.runner.executors.fakes import Rival
from tests.runner.executors.local_launch import Begin


@pytest.fixture
def rival(store: Store) -> Iterator[Begin]:
    rivals: list[Rival] = []

    def begin(kind: StepKind, key: str) -> Rival:
        rivals.append(Rival(store, kind, key))
        return rivals[-1]

    yield begin
    for one in rivals:
        one.kill()
