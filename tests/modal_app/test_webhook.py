"""A notice reaches a real HTTP server as a small body, and errors are reported without the address."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from modal_app.store import notice as notices
from modal_app.store.notice import name_problem
from modal_app.store.webhook import NotSent, send
from tests.webhook_server import PATH, Webhook, serve_webhook

NAME = "MY_NOTIFY_URL"
NOTICE = notices.failed("rank-1a2b3c", "train/abc", "2", "out of memory;\nits key hunter22hunter22")


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with serve_webhook() as webhook:
        monkeypatch.setenv(NAME, webhook.address)
        monkeypatch.setenv("HF_TOKEN", "hunter22hunter22")
        yield webhook


def test_the_body_has_an_id_and_a_text_and_no_secret(webhook: Webhook) -> None:
    send(NOTICE, NAME)
    (body,) = webhook.bodies
    assert abs(body.pop("at") - time.time()) < 60
    assert body == {
        "id": "rank-1a2b3c/failed/train/abc/2",
        "event": "run failed",
        "sweep": "rank-1a2b3c",
        "run": "abc",
        "text": "axosweep: rank-1a2b3c: run abc failed: out of memory; its key ***",
    }


@pytest.mark.parametrize("status", [500, 404, 302, 307])
def test_another_status_than_success_means_not_sent_and_a_redirect_is_not_followed(
    webhook: Webhook, status: int
) -> None:
    webhook.status = status
    with pytest.raises(NotSent, match=f"the webhook in {NAME} answered with status {status}$"):
        send(NOTICE, NAME)


def test_one_that_hangs_is_given_up(webhook: Webhook) -> None:
    webhook.hangs = threading.Event()
    with pytest.raises(NotSent, match=r"does not answer \(TimeoutError\)$"):
        send(NOTICE, NAME, timeout_s=0.1)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        (None, "is not set"),
        (f"file://{PATH}", "not an address"),
        (f"hooks.example{PATH}", "not an address"),
        (f"http://[::1{PATH}", "not an address"),
        (f"http://127.0.0.1:1{PATH}", r"does not answer \(Connection refused\)"),
        (f"http://127.0.0.1:port{PATH}", r"does not answer \(InvalidURL\)"),
        (f"http://127.0.0.1:1{PATH} and\nmore", "does not answer"),
    ],
)
def test_no_error_has_the_address(monkeypatch: pytest.MonkeyPatch, address: str | None, why: str) -> None:
    monkeypatch.delenv(NAME, raising=False)
    if address is not None:
        monkeypatch.setenv(NAME, address)
    with pytest.raises(NotSent, match=why) as error:
        send(NOTICE, NAME)
    assert "secret" not in str(error.value)


def test_an_error_of_tls_does_not_name_the_server(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAME, webhook.address.replace("http://", "https://"))
    with pytest.raises(NotSent, match=r"does not answer \(SSLError\)$"):
        send(NOTICE, NAME)


def test_a_server_that_is_not_a_webhook_is_an_error_without_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv(NAME, f"http://127.0.0.1:{listening.getsockname()[1]}{PATH}")

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"very-secret-path\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(NotSent, match=r"does not answer \(BadStatusLine\)$"):
            send(NOTICE, NAME)
        thread.join()


@pytest.mark.parametrize("value", ["https://hooks.example/secret", "hooks.example/x", "'x y'", "${oc.env:A_SECRET}"])
def test_an_address_in_place_of_a_name_is_refused_and_not_repeated(value: str) -> None:
    assert "export AXOSWEEP_NOTIFY_URL=" in name_problem(value)
    assert value not in name_problem(value)


def test_a_name_by_which_a_secret_is_not_known_is_refused() -> None:
    assert "ends in _NOTIFY_URL" in name_problem("MY_URL")
    assert not name_problem("AXOSWEEP_NOTIFY_URL")
    assert not name_problem("SLACK_WEBHOOK_URL")
