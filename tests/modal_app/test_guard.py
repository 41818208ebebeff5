"""Which requests the local server accepts: the guard itself, and real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from modal_app.serving import peers
from modal_app.serving.guard import Guard

TOKEN = "t" * 16
CLIENT, SERVER = ("127.0.0.1", 1), ("127.0.0.1", 2)


def request(
    *parts: bytes,
    token: str = TOKEN,
    own_user: bool = True,
    sent_token: str = TOKEN,
    method: str = "POST",
    **given: Any,
) -> tuple[int, Any]:
    """The status and the body of the response; the application behind the guard returns the body that it gets."""
    parts = parts or (b"{}",)
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]
    sent: list[Any] = []

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    headers = [
        (b"host", b"localhost:2"),
        (b"authorization", f"Bearer {sent_token}".encode()),
        *given.pop("headers", ()),
    ]
    scope = {"type": "http", "method": method, "path": "/v1/chat/completions", "client": CLIENT, "server": SERVER}
    guard = Guard(application, token, max_body=20, is_own_user=lambda client, server: own_user)
    asyncio.run(guard({**scope, "headers": headers, **given}, receive, send))
    assert sent[0]["status"] != 413 or not messages, "a client that is still writing would not read the answer"
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize(
    "body",
    [
        b"\xff{}", b'{"a": "\xff"}', '{}'.encode("utf-16"), b"", b"{", b'{"a": 1} x', b"NaN", b'{"a": Infinity}',
        rb'"\ud800"', b"[" * 20, b'"\n"',
    ],
)  # fmt: skip
def test_what_is_not_utf_8_or_not_json_is_answered_with_400(body: bytes) -> None:
    status, answer = request(body)
    assert status == 400
    assert json.loads(answer)["error"]["type"] == "invalid_request_error"


def test_json_that_is_nested_too_deeply_is_answered_with_400() -> None:
    from modal_app.serving.guard import Refusal, check_json

    with pytest.raises(Refusal, match="not JSON"):
        check_json(b"[" * 200_000 + b"]" * 200_000)


def test_a_body_that_is_too_long_is_answered_with_413_and_read_away() -> None:
    assert request(b'{"a": 12345678901}')[0] == 200
    assert request(b'{"a": 1234', b"56789012345}")[0] == 413
    assert request(b"{}", headers=[(b"content-length", b"21")])[0] == 413
    assert request(b" " * 9, b" " * 9, b"{}", b" ", headers=[(b"content-length", b"21")])[0] == 413
    assert request(b" " * 30, b" ", b" ", b"{}")[0] == 413


def test_a_body_in_parts_arrives_complete() -> None:
    assert request(b'{"a"', b": 1}") == (200, b'{"a": 1}')


def test_with_a_token_only_it_counts_and_without_one_only_the_own_user() -> None:
    assert request(own_user=False)[0] == 200
    assert request(sent_token="wrong")[0] == 401
    assert request(token="", sent_token="any")[0] == 200
    assert request(token="", own_user=False)[0] == 403
    assert request(token="", headers=[(b"host", b"elsewhere.example")])[0] == 403
    assert request(method="GET", path="/health", sent_token="wrong")[0] == 200


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_user_of_a_connection_is_known_while_a_process_has_it_open(family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family) as listening:
        try:
            listening.bind((host, 0))
        except OSError:
            pytest.skip(f"no {host} here")
        listening.listen()
        line = socket.create_connection(listening.getsockname()[:2])
        accepted, client = listening.accept()
        server = accepted.getsockname()[:2]
        with accepted:
            assert peers.is_own_user(client[:2], server)
            assert not peers.is_own_user((client[0], client[1] - 1), server)
            line.close()
            assert not peers.is_own_user(client[:2], server), "the kernel says user 0 of what no process has open"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a process as another user")
def test_another_user_of_this_machine_is_not_the_own_user(tmp_path: Path) -> None:
    script = Path("/tmp") / f"axosweep-peer-{os.getpid()}.py"  # where another user can read it
    script.write_text(Path(__file__).with_name("serving_peer_script.py").read_text())
    script.chmod(0o644)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        command = ["/usr/bin/env", "python3", str(script), str(listening.getsockname()[1])]
        with subprocess.Popen(command, user=65534, group=65534, extra_groups=[], cwd="/") as other:
            accepted, client = listening.accept()
            try:
                assert not peers.is_own_user(client, accepted.getsockname())
            finally:
                accepted.close()
                other.wait(10)
                script.unlink()
