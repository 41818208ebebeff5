"""executor=modal with the unmodified client and container entrypoint, against the local Modal of tests/modal_server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from modal_app.layout import Store
from runner import trainer_environment
from tests.end_to_end.axosweep import Axosweep, kill
from tests.hub_server import COMMIT, serve_hub
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET, needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("-m", "lora=r8,r16", "max_steps=10", "tracking=disabled")


def losses(axosweep: Axosweep) -> dict[str, tuple[float, float]]:
    return {row["key"]: (row["first"], row["final"]) for row in axosweep.json("compare")["runs"]}


def test_a_sweep_on_modal_ends_in_the_table_that_it_has_here(
    on_modal: Axosweep, server: ModalServer, tmp_path: Path
) -> None:
    here = Axosweep(Store(tmp_path / "here"), on_modal.folder)
    assert here.run(*WORDS).returncode == 0

    done = on_modal.run(*WORDS, "executor=modal")
    assert done.returncode == 0, done.stderr
    assert losses(on_modal) == losses(here)
    assert Counter(task.function for task in server.tasks()) == {"preprocess": 1, "train": 2}
    assert not server.unknown_calls()

    again = on_modal.run(*WORDS, "executor=modal")
    assert "2 runs finished before, skipped; nothing to do" in again.stdout
    assert len(server.function_calls()) == 3


def test_a_killed_client_leaves_a_sweep_that_goes_on_and_can_be_attached_to_from_anywhere(
    on_modal: Axosweep, server: ModalServer, tmp_path: Path
) -> None:
    client = on_modal.start(*WORDS, "executor=modal")
    server.wait_until(lambda: server.function_calls("preprocess"), 60)
    kill(client.pid)
    client.wait()
    (plan,) = on_modal.store.root.glob("modal/sweeps/*/plan.json")

    elsewhere = Axosweep(Store(tmp_path / "elsewhere"), on_modal.folder, server.environment())
    attached = elsewhere.run("attach", plan.parent.name)
    assert attached.returncode == 0, attached.stderr
    assert {row["status"] for row in elsewhere.json("compare")["runs"]} == {"succeeded"}
    assert Counter(task.function for task in server.tasks()) == {"preprocess": 1, "train": 2}


def test_cancel_ends_the_containers(on_modal: Axosweep, server: ModalServer) -> None:
    client = on_modal.start("lora=r8", "max_steps=5000", "num_epochs=50", "tracking=disabled", "executor=modal")
    server.wait_until(lambda: [task for task in server.tasks("train") if task.inputs], 120)
    kill(client.pid)
    client.wait()
    cancelled = on_modal.run("cancel")
    assert cancelled.returncode == 0, cancelled.stderr
    server.wait_until(lambda: all(task.state == "ended" for task in server.tasks("train")), 40)


def test_a_hub_model_is_fetched_once_for_all_runs_and_read_offline(axosweep: Axosweep) -> None:
    with serve_hub("owner/tiny", ROOT / "tiny" / "model") as hub:
        settings = Settings(
            container_python=trainer_environment.find(), grace_s=10, container_environment={"HF_ENDPOINT": hub.url}
        )
        with ModalServer(settings) as server:
            server.set_secret("secrets-hf-wandb", SECRET)
            on_modal = Axosweep(axosweep.store, axosweep.folder, {**server.environment(), "HF_ENDPOINT": hub.url})
            done = on_modal.run(
                "-m", "base_model=owner/tiny", "sequence_len=64,128", "lora=r4,r8", "max_steps=3",
                "tracking=disabled", "executor=modal",
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            calls = Counter(call.function for call in server.function_calls())
            assert calls == {"fetch": 1, "preprocess": 2, "train": 4}
            assert hub.served["model.safetensors"] == 1
            for folder in ("hub", "prepared"):  # somebody makes room
                subprocess.run(
                    [sys.executable, "-m", "modal", "volume", "rm", "-r", "axosweep-cache", folder],
                    env={**os.environ, **server.environment()}, check=True, capture_output=True, timeout=60,
                )  # fmt: skip
            again = on_modal.run(
                "base_model=owner/tiny", "sequence_len=64", "lora=r16", "max_steps=3", "tracking=disabled",
                "executor=modal",
            )  # fmt: skip
            assert again.returncode == 0, again.stderr
    assert hub.served["model.safetensors"] == 2
    run = json.loads(next(on_modal.store.root.glob("modal/runs/*/run.json")).read_text())
    assert {one["identity"] for one in run["inputs"] if one["at"] == "base_model"} == {COMMIT}


def test_a_model_that_the_hub_does_not_give_blocks_its_runs_and_says_so(axosweep: Axosweep) -> None:
    """It is pinned, so that this machine does not ask for it."""
    with serve_hub() as hub:
        settings = Settings(
            container_python=trainer_environment.find(), grace_s=10, container_environment={"HF_ENDPOINT": hub.url}
        )
        with ModalServer(settings) as server:
            server.set_secret("secrets-hf-wandb", SECRET)
            on_modal = Axosweep(axosweep.store, axosweep.folder, server.environment())
            done = on_modal.run("base_model=owner/gone", f"revision_of_model={COMMIT}", *WORDS[2:], "executor=modal")
            assert done.returncode == 1
            (row,) = on_modal.json("compare")["runs"]
            assert not server.function_calls("train")
    assert row["status"] == "blocked"
    assert "owner/gone" in row["message"]
    assert hub.refused[404, f"/api/models/owner/gone/tree/{COMMIT}"] == 1, "it has said no: nobody asks again"
