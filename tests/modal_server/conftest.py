from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import modal
import pytest

from tests.modal_server.fixture import client, modal_server, modal_settings

__all__ = ["client", "modal_server", "modal_settings"]
_APPS = Path(__file__).with_name("apps")


@pytest.fixture
def fresh_app(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Imports an app anew: its handles remember the server that they were first used with."""
    monkeypatch.syspath_prepend(str(_APPS))

    def load(name: str) -> ModuleType:
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


@pytest.fixture
def small(
    fresh_app: Callable[[str], ModuleType], modal_server: object, client: modal.Client
) -> Callable[[str], modal.Function]:
    """`small("add")`: a function of the deployed small app."""
    modal_server.set_secret("keys", {"API_KEY": "sesame"})  # type: ignore[attr-defined]
    module = fresh_app("small_app")
    module.app.deploy(client=client)
    return lambda name: modal.Function.from_name(module.NAME, name, client=client)
