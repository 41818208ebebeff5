from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import modal
import pytest

from tests.modal_server import ModalServer, Settings
from tests.modal_server.deployed import APPS, Small, deploy_small, load
from tests.modal_server.fixture import client_of, modal_client, modal_server, modal_settings
from tests.modal_server.settings import REPOSITORY

__all__ = ["modal_client", "modal_server", "modal_settings"]


@pytest.fixture
def fresh_app(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    monkeypatch.syspath_prepend(str(APPS))
    return load


@pytest.fixture
def small(fresh_app: object, modal_server: ModalServer, modal_client: modal.Client) -> Small:
    """The app on a server of its own."""
    return deploy_small(modal_server, modal_client)


@pytest.fixture
def shared(warm: Small) -> Small:
    """The app on a server that the module's tests share, with warm containers, for tests that look only at their own
    calls."""
    modal.Dict.from_name("claims", create_if_missing=True, client=warm.client).clear()
    warm.server.set_full_gpus()
    warm.server.forget_calls()
    return warm


@pytest.fixture(scope="module")
def warm() -> Iterator[Small]:
    with (
        pytest.MonkeyPatch.context() as patch,
        ModalServer(Settings(grace_s=0.5, container_environment={"REPOSITORY": str(REPOSITORY)})) as server,
    ):
        patch.syspath_prepend(str(APPS))
        with client_of(server, patch) as client:
            yield deploy_small(server, client)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks them as slow: each starts containers, which are processes and take a few seconds."""
    folder = Path(__file__).parent
    slow = {path for path in {item.path for item in items} if folder in path.parents}
    for item in items:
        if item.path in slow:
            item.add_marker(pytest.mark.slow)
