"""`modal_server`: the local Modal, as a pytest fixture. Import it into the conftest.py of the tests that need it.

Clients are processes of their own, started with `os.environ | modal_server.environment()`; in the test's own process
`modal_client` is one that no configuration of this machine reaches.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import modal
import pytest

from tests.modal_server.server import ModalServer
from tests.modal_server.settings import Settings, why_no_mounts

needs_mounts = pytest.mark.skipif(bool(why_no_mounts()), reason=f"Volumes inside of containers: {why_no_mounts()}")


@pytest.fixture
def modal_settings() -> Settings:
    """Override this one to turn something."""
    return Settings()


@pytest.fixture
def modal_server(modal_settings: Settings) -> Iterator[ModalServer]:
    with ModalServer(modal_settings) as server:
        yield server


@pytest.fixture
def modal_client(modal_server: ModalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[modal.Client]:
    """A client inside of the test's process: `app.deploy(client=client)`, `Function.from_name(..., client=client)`."""
    with client_of(modal_server, monkeypatch) as client:
        yield client


@contextmanager
def client_of(server: ModalServer, patch: pytest.MonkeyPatch) -> Iterator[modal.Client]:
    """The client's configuration is read from the environment, so that is set, too."""
    for name, value in server.environment().items():
        patch.setenv(name, value)
    client = modal.Client.from_credentials(*server.settings.token)
    yield client
    client.close()
