"""What a sweep needs from this machine and its accounts: found, printed without a secret, and never waited for long."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from runner import cli
from tests.modal_server.server import ModalServer
from tests.modal_server.settings import Settings
from tests.printed_json import read_printed
from tests.runner.fake_trainer import make_trainer

Examined = Callable[[], Mapping[str, Any]]


@pytest.fixture(autouse=True)
def _nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a trainer and without any login."""
    for name in ("HF_TOKEN", "WANDB_API_KEY", "MODAL_TOKEN_ID", "MODAL_TOKEN_SECRET", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home" / "hub"))
    monkeypatch.setenv("NETRC", str(tmp_path / "home" / "netrc"))
    monkeypatch.setenv("MODAL_CONFIG_PATH", str(tmp_path / "home" / "modal.toml"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(make_trainer(tmp_path / "trainer")))
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "store"))


@pytest.fixture
def examined(capsys: pytest.CaptureFixture[str]) -> Examined:
    def examine() -> Mapping[str, Any]:
        code = cli.main(["doctor", "--json", "--wait", "60"])  # the machine may be busy with other tests
        checks = {check["name"]: check for check in read_printed("doctor", capsys.readouterr().out)["checks"]}
        assert code == int(any(check["mark"] == "problem" for check in checks.values()))
        return checks

    return examine


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing_hub() -> Iterator[str]:
    class Refuse(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401 if self.headers.get("Authorization") else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuse)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_machine_without_accounts_is_well_enough(examined: Examined) -> None:
    checks = examined()
    assert {check["mark"] for check in checks.values()} == {"ok", "note"}
    assert "modal token new" in checks["Modal token"]["way_out"]
    assert "HF_TOKEN" in checks["Hugging Face token"]["way_out"]
    assert "wandb login" in checks["W&B key"]["way_out"]


def test_no_trainer_environment_is_a_problem(
    examined: Examined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "nowhere"))
    assert examined()["trainer environment"]["mark"] == "problem"


def test_a_store_that_cannot_be_is_a_problem(
    examined: Examined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "file" / "store"))
    assert examined()["store"]["mark"] == "problem"


def test_what_never_answers_is_not_waited_for_and_no_secret_is_shown(silent: str, tmp_path: Path) -> None:
    secrets = {"HF_TOKEN": "hf_hunter2", "MODAL_TOKEN_ID": "ak-hunter2", "MODAL_TOKEN_SECRET": "as-hunter2"}
    mirror = silent.replace("://", "://me:hunter2@")
    environment = os.environ | secrets | {"HF_ENDPOINT": mirror, "MODAL_SERVER_URL": silent, "WANDB_API_KEY": "hunter2"}
    began = time.monotonic()
    command = [sys.executable, "-m", "runner", "doctor", "--wait", "2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert time.monotonic() - began < 10, "the start of a busy machine included"
    assert done.returncode == 0, done.stdout
    assert "Modal does not answer now" in done.stdout
    assert "hunter2" not in done.stdout + done.stderr


def test_a_token_that_the_hub_refuses_is_a_problem(
    examined: Examined, refusing_hub: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", refusing_hub)
    assert examined()["Hugging Face hub"]["mark"] == "ok"
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    assert examined()["Hugging Face token"]["mark"] == "problem"


@pytest.mark.medium
def test_modal_has_to_accept_the_token_and_have_the_secret(examined: Examined, monkeypatch: pytest.MonkeyPatch) -> None:
    with ModalServer(Settings()) as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        checks = examined()
        assert (checks["Modal token"]["mark"], checks["Modal secret"]["mark"]) == ("ok", "note")
        assert "modal secret create secrets-hf-wandb" in checks["Modal secret"]["way_out"]
        server.set_secret("secrets-hf-wandb", {"WANDB_API_KEY": "hunter2"})
        assert examined()["Modal secret"]["mark"] == "ok"
        monkeypatch.setenv("MODAL_TOKEN_SECRET", "as-wrong")
        assert examined()["Modal token"]["mark"] == "problem"


def test_the_doctor_loads_neither_modal_nor_hydra(tmp_path: Path) -> None:
    code = "import sys; from runner import cli; cli.main(['doctor']); print({'modal', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
