import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runner.keys import hub_commits
from runner.keys.hub_commits import Repository, resolve

COMMIT = "a" * 40
MODEL = Repository("model", "owner/name")
TELEMETRY = ("HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
ROWS = Repository("dataset", "owner/rows")


@dataclass
class Hub:
    """A hub on this machine that gives one answer and records the requests."""

    status: int = 200
    body: bytes = json.dumps({"id": "owner/name", "sha": COMMIT}).encode()
    moved_to: str = ""
    """The address to which it redirects."""
    asked: list[str] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_TOKEN_PATH", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    resolve.cache_clear()
    yield
    resolve.cache_clear()


@contextmanager
def serve(answer: Hub) -> Iterator[str]:

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer.asked.append(self.path)
            answer.tokens.append(self.headers["Authorization"])
            self.send_response(307 if answer.moved_to else answer.status)
            if answer.moved_to:
                self.send_header("Location", answer.moved_to + self.path)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    answer = Hub()
    with serve(answer) as address:
        monkeypatch.setenv("HF_ENDPOINT", f"{address}/")
        yield answer


def cached(tmp_path: Path, folder: str, revision: str, commit: str = "b" * 40) -> None:
    ref = tmp_path / "hub" / folder / "refs" / revision
    ref.parent.mkdir(parents=True)
    ref.write_text(commit)


def test_a_name_resolves_to_the_commit_that_the_hub_has_for_it_now(far: Hub) -> None:
    assert resolve(MODEL, None).commit == COMMIT
    assert resolve(ROWS, "refs/convert/parquet").commit == COMMIT
    assert far.asked == [
        "/api/models/owner/name/revision/main",
        "/api/datasets/owner/rows/revision/refs%2Fconvert%2Fparquet",
    ]


def test_a_name_is_looked_up_once_however_many_runs_read_it(far: Hub) -> None:
    assert {resolve(MODEL, "main") for _ in range(3)} == {resolve(MODEL, "main")}
    assert len(far.asked) == 1


def test_a_full_commit_needs_no_request(far: Hub) -> None:
    assert resolve(MODEL, "c" * 40).commit == "c" * 40
    assert far.asked == []


def test_the_token_is_sent_only_when_there_is_one(far: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(MODEL, None)
    monkeypatch.setenv("HF_TOKEN", "secret")
    resolve(ROWS, None)
    assert far.tokens == [None, "Bearer secret"]


def test_the_white_space_around_a_token_is_not_part_of_it(far: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret\n")
    assert resolve(MODEL, None).commit == COMMIT
    assert far.tokens == ["Bearer secret"]


def test_a_token_that_cannot_be_sent_is_a_problem_that_does_not_repeat_it(
    far: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "sec\nret")
    problem = resolve(MODEL, None).problem
    assert "HF_TOKEN" in problem
    assert "sec" not in problem
    assert far.asked == []


def test_a_token_that_a_login_has_stored_is_sent_too(far: Hub, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("kept\n")
    resolve(MODEL, None)
    assert far.tokens == ["Bearer kept"]


def test_a_redirect_to_another_host_does_not_take_the_token_along(far: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    elsewhere = Hub()
    with serve(elsewhere) as address:
        far.moved_to = address
        assert resolve(MODEL, None).commit == COMMIT
    assert far.tokens == ["Bearer secret"]
    assert elsewhere.tokens == [None]


def test_only_the_commit_is_requested_and_no_telemetry_sent(far: Hub, tmp_path: Path) -> None:
    """In a process of its own: the library requests a list of agents once, and stores it in HF_HOME."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(TELEMETRY)}
    script = f"from runner.keys.hub_commits import *; print(resolve({MODEL!r}, None).commit)"
    done = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == COMMIT
    assert far.asked == ["/api/models/owner/name/revision/main"]
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_the_hub_cannot_have_is_a_problem_and_makes_no_request(far: Hub) -> None:
    assert (
        "not a valid name on the hub: Cannot have -- or .. in repo_id"
        in resolve(Repository("model", "owner/a--b"), None).problem
    )
    assert far.asked == []


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "401: no such name, or it is private or gated"),
        (403, "private or gated"),
        (404, "404: it has no model of this name and revision"),
        (500, "the hub answered 500"),
    ],
)
def test_a_refusal_says_what_the_hub_said(far: Hub, status: int, says: str) -> None:
    far.status = status
    resolved = resolve(MODEL, None)
    assert resolved.commit is None
    assert says in resolved.problem


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"sha": 1}', b'{"sha": "main"}', b"\xff\xfe\xff"])
def test_an_answer_without_a_commit_gives_no_commit(far: Hub, body: bytes) -> None:
    far.body = body
    resolved = resolve(MODEL, None)
    assert resolved.commit is None
    assert resolved.problem.startswith("the hub")


def test_a_hub_that_does_not_answer_is_a_problem_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unheard.getsockname()[1]}")
        assert "did not answer" in resolve(MODEL, None).problem


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"])
def test_something_that_does_not_speak_http_is_a_problem_and_no_error(
    greeting: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            caller, _ = server.accept()
            with caller:
                caller.recv(65536)
                caller.sendall(greeting)

        thread = threading.Thread(target=answer)
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert "did not answer" in resolve(MODEL, None).problem
        thread.join()


def test_an_endpoint_that_is_not_an_address_is_a_problem_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "mirror")
    assert "did not answer" in resolve(MODEL, None).problem


def test_offline_the_local_cache_knows_the_commit_and_no_request_is_made(
    far: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached(tmp_path, "models--owner--name", "main")
    cached(tmp_path, "datasets--owner--rows", "refs/pr/1", "d" * 40)
    assert resolve(MODEL, None).commit == "b" * 40
    assert resolve(ROWS, "refs/pr/1").commit == "d" * 40
    assert far.asked == []


def test_offline_without_a_cache_says_that_it_is_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    assert resolve(MODEL, None) == hub_commits.Resolution(None, "HF_HUB_OFFLINE is set")


def test_an_unreachable_hub_falls_back_on_the_local_cache_and_the_hub_wins_over_it(
    far: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(tmp_path, "models--owner--name", "main")
    assert resolve(MODEL, None).commit == COMMIT
    resolve.cache_clear()
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    assert resolve(MODEL, None).commit == "b" * 40


def test_a_cut_reference_in_the_cache_is_not_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached(tmp_path, "models--owner--name", "main", "b" * 39)
    assert resolve(MODEL, None).commit is None


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/x/hub"}, "/x/hub"),
        ({"HF_HOME": "/hf"}, "/hf/hub"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/huggingface/hub"),
        ({"HF_HUB_CACHE": "/x/hub", "HF_HOME": "/hf", "XDG_CACHE_HOME": "/xdg"}, "/x/hub"),
    ],
)
def test_the_cache_is_where_the_hub_library_keeps_it(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub_commits.hub_cache() == Path(expected)
