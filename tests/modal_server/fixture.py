"""`modal_server`: the local Modal, as a pytest fixture. Import it into the conftest.py of the tests that need it.

Clients are processes of their own, started with `os.environ | modal_server.environment()`; in the test's own process
`client` gives one that no configuration of this machine reaches.
"""

from __future__ import annotations

from collections.abc import Iterator

import modal
import pytest

from tests.modal_server.server import ModalServer
from tests.modal_server.settings import Settings

needs_mounts = pytest.mark.skipif(
    not Settings().mounts, reason="Volumes inside of containers need private mounts, which need root"
)


@pytest.fixture
def modal_settings() -> Settings:
    """Override this one to turn something."""
    return Settings()


@pytest.fixture
def modal_server(modal_settings: Settings) -> Iterator[ModalServer]:
    with ModalServer(modal_settings) as server:
        yield server


@pytest.fixture
def client(modal_server: ModalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[modal.Client]:
    """A client inside of the test's process: `app.deploy(client=client)`, `Function.from_name(..., client=client)`."""
    for name, value in modal_server.environment().items():
        monkeypatch.setenv(name, value)
    client = modal.Client.from_credentials(*modal_server.settings.token)
    yield client
    client.close()
