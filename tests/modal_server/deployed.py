"""The small app, deployed: what most tests of this folder call."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import modal

from tests.modal_server.server import ModalServer

APPS = Path(__file__).with_name("apps")


@dataclass(frozen=True)
class Small:
    """`small("add")` is the function of that name."""

    server: ModalServer
    client: modal.Client

    def __call__(self, name: str) -> modal.Function[..., Any, Any]:
        return modal.Function.from_name("small", name, client=self.client)


def load(name: str) -> ModuleType:
    """Import an app again: its handles remember the first server that they were used with."""
    sys.modules.pop(name, None)
    return importlib.import_module(name)


def deploy_small(server: ModalServer, client: modal.Client) -> Small:
    """With the secret that it needs. The folder of the apps must be on the path."""
    server.set_secret("keys", {"API_KEY": "sesame"})
    load("small_app").app.deploy(client=client)
    return Small(server, client)
