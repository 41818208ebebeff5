"""The calls that a sweep makes, end to end, with a step that does nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import modal
import pytest

from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import needs_mounts

pytestmark = needs_mounts
_APPS = Path(__file__).with_name("apps")
_PLAN = {
    "version": 1,
    "runs": [
        {"key": "a", "seconds": 0.2, "options": {"gpu": "A100-80GB:2", "timeout": 7200, "max_containers": 1}},
        {"key": "b", "seconds": 0.2, "options": {"gpu": "A100-80GB:2", "timeout": 7200, "max_containers": 1}},
        {"key": "c", "seconds": 3, "options": {"gpu": "H100:4", "timeout": 7200, "max_containers": 1}},
    ],
}


@pytest.fixture
def modal_settings() -> Settings:
    return Settings(grace_s=0.5)


@pytest.fixture
def submitted(modal_server: ModalServer, tmp_path: Path) -> str:
    """A client in a process of its own deploys, uploads, spawns one call and ends; returns the call's id."""
    modal_server.set_secret("secrets-hf-wandb", {"HF_TOKEN": "hf_local", "WANDB_API_KEY": "local"})
    data = tmp_path / "data.jsonl"
    data.write_text("a line")
    command = [sys.executable, str(_APPS / "sweep_app.py"), json.dumps(_PLAN), str(data)]
    environment = os.environ | modal_server.environment() | {"PYTHONPATH": str(_APPS)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120)
    return done.stdout.split()[-1]


def finished(server: ModalServer, function: str, count: int) -> list[str]:
    """The ids of so many calls of a function, once all have ended."""

    def ready() -> list[str]:
        calls = server.function_calls(function)
        return [call.id for call in calls] if len(calls) == count and {c.status for c in calls} == {"success"} else []

    return server.wait_until(ready, 60)


def test_a_sweep_runs_to_its_end_while_no_client_is_there(
    submitted: str, modal_server: ModalServer, modal_client: modal.Client
) -> None:
    trained = finished(modal_server, "train", 3)
    fetched = modal.FunctionCall.from_id(submitted, client=modal_client).get(timeout=0)
    assert fetched["started"] == [call.id for call in modal_server.function_calls("preprocess")]
    results = [modal.FunctionCall.from_id(one, client=modal_client).get(timeout=0) for one in trained]
    assert results == [{"status": "succeeded", "data": "A LINE", "loss": 0.25, "token": "hf_local", "offline": "1"}] * 3

    runs = modal.Volume.from_name("runs", client=modal_client)
    assert {entry.path for entry in runs.listdir("runs")} == {"runs/a", "runs/b", "runs/c"}
    assert json.loads(b"".join(runs.read_file("runs/b/result.json")))["loss"] == 0.25
    lines = [entry.message for entry in modal.FunctionCall.from_id(trained[2], client=modal_client).logs.tail(50)]
    assert lines == ["training in /runs/runs/c\n"]
    check_what_was_seen(modal_server)


def check_what_was_seen(modal_server: ModalServer) -> None:
    """The GPUs, the caps, the mounts, the layers, and that one call was enough."""
    assert sorted(task.gpu for task in modal_server.tasks("train")) == ["A100-80GB:2", "A100-80GB:2", "H100:4"]
    assert modal_server.peak_gpus() <= 2 + 4
    assert {(call.timeout_s, call.max_containers) for call in modal_server.function_calls("train")} == {(7200, 1)}
    assert modal_server.counts()["FunctionMap"] == 1
    spec = modal_server.function_specs()["train"][-1]
    assert {mount.mount_path: mount.read_only for mount in spec.volume_mounts} == {"/cache": True, "/runs": False}
    assert spec.single_use_containers
    layers = modal_server.image_layers("train")
    assert layers[0] == "FROM nvidia/cuda:12.8.1-devel-ubuntu24.04"
    assert any("axolotl==0.21.0" in line for line in layers)
    assert len(modal_server.dict_items("claims")) == 5
    assert not modal_server.unknown_calls()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["preempt", "kill"])
def test_a_training_whose_container_is_lost_goes_on_in_another(
    submitted: str, modal_server: ModalServer, end: str
) -> None:
    task = modal_server.wait_until(lambda: [t for t in modal_server.tasks("train") if t.gpu == "H100:4"], 60)[0]
    modal_server.wait_until(lambda: "training in /runs/runs/c" in modal_server.log(function="train"))
    getattr(modal_server, end)(task.id)
    finished(modal_server, "train", 3)
    assert (modal_server.volume_tree("runs") / "runs" / "c" / "attempts").read_text() == "2"


@pytest.mark.slow
def test_cancelling_ends_a_training_with_all_its_processes(
    submitted: str, modal_server: ModalServer, modal_client: modal.Client
) -> None:
    modal_server.wait_until(lambda: "training in /runs/runs/c" in modal_server.log(function="train"), 60)
    call = next(call for call in modal_server.function_calls("train") if call.gpu == "H100:4")
    modal.FunctionCall.from_id(call.id, client=modal_client).cancel(terminate_containers=True)
    tasks = [task for task in modal_server.tasks("train") if task.gpu == "H100:4"]
    modal_server.wait_until(lambda: all(task.ended_at for task in modal_server.tasks("train")))
    assert len(tasks) == 1
    assert not (modal_server.volume_tree("runs") / "runs" / "c" / "result.json").exists()
