"""The fake W&B stores what the unmodified SDK sends, and returns it to the SDK's own reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wandb_server import WandbServer, serve_wandb
from tests.wandb_server.sdk import command

pytestmark = pytest.mark.slow

PROJECT = "project"


def sdk(server: WandbServer, folder: Path, *words: str) -> str:
    done = subprocess.run(
        words, env={**os.environ, **server.environment(), "WANDB_DIR": str(folder)}, cwd=folder,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WandbServer, Path, list[str]]]:
    """A run that failed online and was resumed, then twice offline, and synced; and its states on the way."""
    folder = tmp_path_factory.mktemp("sdk")
    with serve_wandb() as server:
        states = []
        for first, code in ((0, 1), (3, 9), (6, 0)):
            sdk(server, folder, *command("train_script.py", "online", str(first), str(code), "one"))
            states.append(server.runs(PROJECT)["one"].state)
        for first in (9, 12):
            sdk(server, folder, *command("train_script.py", "offline", str(first), "0", "one"))
        offline = map(str, sorted((folder / "wandb").glob("offline-run-*")))
        sdk(server, folder, sys.executable, "-m", "wandb", "sync", *offline)
        yield server, folder, states
        assert not server.world.unknown


Lived = tuple[WandbServer, Path, list[str]]


def test_a_run_is_what_the_sdk_said_of_it(lived: Lived) -> None:
    run = lived[0].runs(PROJECT)["one"]
    assert (run.group, run.job_type, run.display_name) == ("sweep-a", "train", "lora_r=8")
    assert run.settings["lora_r"] == 8


def test_a_run_that_failed_or_was_preempted_is_distinguished_from_one_that_finished(lived: Lived) -> None:
    assert lived[2] == ["failed", "preempted", "finished"]


def test_a_resumed_run_and_synced_fragments_are_one_run_with_continuous_steps(lived: Lived) -> None:
    run = lived[0].runs(PROJECT)["one"]
    assert [row["_step"] for row in run.history] == list(range(15))
    assert run.values("train/loss") == {step: pytest.approx(1 / (step + 1)) for step in range(15)}


def test_artifacts_have_their_bytes(lived: Lived) -> None:
    artifacts = lived[0].world.artifacts
    assert [one.files["note.txt"] for one in artifacts] == [
        f"attempt at {first}".encode() for first in (0, 3, 6, 9, 12)
    ]
    assert all(one.state == "COMMITTED" and b"note.txt" in one.manifest for one in artifacts)


def test_the_reader_of_the_sdk_finds_runs_by_group_or_tag_and_may_change_them(lived: Lived) -> None:
    server, folder, _ = lived
    count, others, state, config, history, scanned, files = _read(server, folder)
    assert (count, others, state, config) == (1, 0, "finished", {"lora_r": 8})
    assert [row["train/global_step"] for row in history] == list(range(15))
    assert scanned == list(range(15))
    assert "wandb-metadata.json" in files
    run = server.runs(PROJECT)["one"]
    assert (run.tags, run.summary["dollars"], run.state) == (["mine", "sweep:sweep-b"], 1.5, "finished")


def _read(server: WandbServer, folder: Path) -> Any:
    return json.loads(sdk(server, folder, *command("read_script.py")))
