"""`ls` and `pull` of runs on Modal, with the unmodified client: block by block, each byte once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from modal_proto import api_pb2

from modal_app.store.layout import Store
from runner.executors.modal_submission import Names
from runner.files.modal_files import BLOCK, ModalFiles, _fetch
from runner.types import Run
from tests.forked_command import COMMAND
from tests.modal_server import ModalServer
from tests.modal_server.fixture import client_of
from tests.runner.builders import open_sweep
from tests.runner.executors.volume_store import NAMES, mirror, submit, upload
from tests.runner.run_files_store import content, finished_run

pytestmark = pytest.mark.slow
WEIGHTS = 3 * BLOCK + 12345


@dataclass(frozen=True)
class There:
    """A finished run on the Volumes, and the command on a machine that has a mirror of it."""

    server: ModalServer
    one: Run
    here: Path
    environment: Mapping[str, str]

    def command(self, *words: str) -> list[str]:
        return [*COMMAND, *words, "--store", str(self.here)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*words), env=self.environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    root = tmp_path_factory.mktemp("there")
    store = Store(root / "volumes")
    one = finished_run(store, weights=WEIGHTS)
    submit(store, open_sweep(store, [one], "files"))
    with ModalServer() as server, pytest.MonkeyPatch.context() as patch, client_of(server, patch) as client:
        upload(store, client)
        mirror(store, root / "here")
        yield There(server, one, root / "here", {**os.environ, **server.environment()})


def test_ls_shows_what_is_on_the_volumes(there: There) -> None:
    done = there.run("ls", there.one.key, "--json")
    assert done.returncode == 0, done.stderr
    parts = {part["part"]: part for part in json.loads(done.stdout)["parts"]}
    assert parts["adapter"]["bytes"] > WEIGHTS
    assert parts["adapter"]["place"] == f"Volume axosweep-runs: runs/{there.one.key}/model"
    assert parts["data"]["place"] == f"Volume axosweep-cache: prepared/{there.one.data_key}"
    assert {"checkpoint-10", "checkpoint-20", "logs", "record"} <= set(parts)


def test_a_pull_from_modal_that_is_killed_goes_on_at_its_last_byte(there: There, tmp_path: Path) -> None:
    words = ("pull", there.one.key, "adapter", str(tmp_path / "home"), "--json")
    part = tmp_path / "home" / ".adapter_model.safetensors.part"
    there.server.slow_blocks(0.5)
    with subprocess.Popen(there.command(*words), env=there.environment, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size >= BLOCK):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    there.server.slow_blocks(0.0)
    cut, before = part.stat().st_size, there.server.requested_bytes()
    assert BLOCK <= cut < WEIGHTS
    there.server.forget_calls()
    done = there.run(*words)
    assert done.returncode == 0, done.stderr
    weights = tmp_path / "home" / "adapter_model.safetensors"
    assert weights.read_bytes() == content(there.one.key, WEIGHTS)
    requests = [call.request for call in there.server.calls("VolumeGetFile2")]
    requested = {one.path: one.start for one in requests if isinstance(one, api_pb2.VolumeGetFile2Request)}
    assert requested[f"runs/{there.one.key}/model/adapter_model.safetensors"] == cut
    assert there.server.requested_bytes() - before < WEIGHTS - cut + 5_000, "what was here was not sent again"
    before = there.server.requested_bytes()
    again = json.loads(there.run(*words).stdout)
    assert (again["fetched"], again["bytes"]) == ([], 0)
    assert there.server.requested_bytes() - before < 5_000, "the manifest and the checkpoints' markers alone"


def test_a_file_is_read_from_any_byte_on(there: There, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(there.server, monkeypatch):
        files = ModalFiles(Names(**NAMES))
        path = f"runs/{there.one.key}/model/adapter_model.safetensors"
        whole = content(there.one.key, WEIGHTS)
        for start in (0, 1, BLOCK - 1, BLOCK, 2 * BLOCK + 7, WEIGHTS - 1, WEIGHTS):
            assert b"".join(files.read(path, start)) == whole[start:], start
        assert not files.below("runs/nothing")
        with pytest.raises(FileNotFoundError):
            list(files.read("runs/nothing", 0))


def test_a_block_whose_connection_ends_in_the_middle_is_requested_again() -> None:
    sent: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(b"0123456789" if sent else b"0123")
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(sent[-1])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        assert _fetch(f"http://127.0.0.1:{server.server_port}/", 10, "runs/a/weights") == b"0123456789"
        server.shutdown()
    assert len(sent) == 2


def test_a_volume_that_is_gone_or_a_wrong_token_is_one_message(there: There, tmp_path: Path) -> None:
    environment = {**there.environment, "MODAL_TOKEN_ID": "ak-wrong"}
    words = there.command("pull", there.one.key, str(tmp_path / "home"))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "modal token new" in done.stderr
    assert not (tmp_path / "home").exists()


def test_what_was_never_put_there_is_reported(there: There, tmp_path: Path) -> None:
    assert "has no merged model" in there.run("pull", there.one.key, "merged", str(tmp_path / "home")).stderr
    assert "no run or sweep" in there.run("pull", "nope", str(tmp_path / "home")).stderr


def test_everything_of_a_run_is_pulled_completely(there: There, tmp_path: Path) -> None:
    done = there.run("pull", there.one.key, "all", str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "home" / "data" / "0123" / "data.arrow").read_bytes() == content("rows", 50_000)
    assert (tmp_path / "home" / "checkpoint-20" / "optimizer.pt").read_bytes() == content("optimizer 20", 40_000)
