from __future__ import annotations

import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from types import ModuleType

import modal
import pytest

from tests.modal_server import ModalServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        "eth0" not in {name for _, name in socket.if_nameindex()}, reason="Modal's client asks for eth0's address"
    ),
]


def post(url: str, body: bytes) -> tuple[int, str, bytes]:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        return answer.status, answer.headers["X-Path"], answer.read()


def test_a_web_function_answers_at_its_address_until_its_app_is_stopped(
    fresh_app: Callable[[str], ModuleType], modal_server: ModalServer, modal_client: modal.Client
) -> None:
    fresh_app("web_app").app.deploy(client=modal_client)
    url = modal.Function.from_name("web", "echo", client=modal_client).hydrate().get_web_url()
    assert url is not None
    assert post(f"{url}/some/path?a=b", b"one two") == (201, "/some/path?a=b", b"eno owt ")
    assert post(f"{url}/", b"three") == (201, "/", b"eerht ")
    assert len(modal_server.tasks("echo")) == 1
    modal.App.lookup("web", client=modal_client).stop(client=modal_client)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        post(f"{url}/", b"four")
    assert not modal_server.unknown_calls()
