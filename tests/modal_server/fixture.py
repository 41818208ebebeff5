"""`modal_server`: the local Modal, as a pytest fixture. Import it into the conftest.py of the tests that need it.

Clients are processes of their own, started with `os.environ | modal_server.environment()`; in the test's own process,
`modal_client` is a client that ignores this machine's configuration.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import modal
import pytest
from modal._environments import ENVIRONMENT_CACHE
from modal.client import _Client

from tests.modal_server.layers import HOME
from tests.modal_server.server import ModalServer
from tests.modal_server.settings import Settings, why_no_mounts

SECRET = {"HUGGINGFACE_TOKEN": "hf_test", "WANDB_API_KEY": "k" * 40}
"""What `secrets-hf-wandb` holds in tests."""

needs_mounts = pytest.mark.skipif(bool(why_no_mounts()), reason=f"Volumes inside of containers: {why_no_mounts()}")


def noop_settings(
    *,
    preprocess_s: float = 0.0,
    train_s: float = 0.0,
    merge_s: float = 0.0,
    until: Mapping[str, Path] | None = None,
    losses: Path | None = None,
    **others: Any,
) -> Settings:
    """Containers whose worker is noop_worker.py: steps that do nothing, on any GPU, without the trainer environment.

    Everything but Axolotl is real: the deployed functions, the claims, the Volumes, the worker's claim, its attempt and
    its result. `ModalServer(noop_settings(train_s=2))` is enough. A step lasts the given seconds. `until` names files:
    `train`, `preprocess` or the like is the file for which such a step waits then, and `save` is the file for which a
    step waits that is stopped. `losses`: a folder with the losses of rows that runs leave. These folders are shown to
    the containers.
    """
    files = {f"{HOME}/modal_app/worker.py": Path(__file__).with_name("noop_worker.py")}
    lasting = {"PREPROCESS": preprocess_s, "TRAIN": train_s, "MERGE": merge_s}
    environment = {f"NOOP_{kind}_S": str(seconds) for kind, seconds in lasting.items()}
    environment |= {f"NOOP_{name.upper()}_UNTIL": str(file) for name, file in (until or {}).items()}
    environment |= {"NOOP_LOSSES": str(losses)} if losses else {}
    environment |= others.pop("container_environment", {})
    visible = (*{file.parent for file in (until or {}).values()}, *([losses] if losses else []))
    return Settings(container_environment=environment, files=files, visible=visible, **others)


@pytest.fixture
def modal_settings() -> Settings:
    """Override this one to change something."""
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
    """The client's configuration is read from the environment, so that is set, too. Code that names no client uses the
    process's own, which would keep using its first server, and remembers environments."""
    _Client._set_env_client(None)
    ENVIRONMENT_CACHE.clear()
    for name, value in server.environment().items():
        patch.setenv(name, value)
    client = modal.Client.from_credentials(*server.settings.token)
    yield client
    client.close()
    _Client._set_env_client(None)
