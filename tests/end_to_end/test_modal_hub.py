"""What runs on Modal read from the hub: fetched once, found offline, at the pinned commit."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from runner.environment import trainer_environment
from tests.end_to_end.axosweep import UNPADDED, Axosweep
from tests.end_to_end.on_modal import CACHE, RUNS, local_modal, machine, with_axolotl
from tests.hub_server import COMMIT, Hub, serve_hub
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

TINY = Path(__file__).resolve().parents[2] / "tiny" / "model"
ADAPTER_COMMIT = "adab7e5" + "0" * 33
SHORT = (UNPADDED, "data.limit=200", "max_steps=5", "tracking=disabled", "executor=modal")
WEIGHTS = "model.safetensors"
CLAIMS = "axosweep-claims"
MODAL_COMMANDS = Path(__file__).parents[1] / "modal_server" / "modal_commands_script.py"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub("owner/tiny", TINY) as hub:
        yield hub


@pytest.fixture
def server(hub: Hub) -> Iterator[ModalServer]:
    with local_modal(with_axolotl(container_environment={"HF_ENDPOINT": hub.url})) as server:
        yield server


@pytest.fixture
def fetching(hub: Hub) -> Iterator[ModalServer]:
    """A local Modal on which only the fetch is real."""
    settings = noop_settings(
        container_python=trainer_environment.find(), container_environment={"HF_ENDPOINT": hub.url}
    )
    with local_modal(settings) as server:
        yield server


def test_a_hub_model_then_an_adapter_and_a_tokenizer_of_the_hub_with_local_weights_are_read_offline(
    hub: Hub, server: ModalServer, tmp_path: Path
) -> None:
    on_modal = machine(server, tmp_path / "machine", HF_ENDPOINT=hub.url)
    (first,) = on_modal.json("base_model=owner/tiny", *SHORT)["runs"]
    run = json.loads((on_modal.store.root / "modal" / "runs" / first["key"] / "run.json").read_text())
    assert {one["identity"] for one in run["inputs"] if one["at"] == "base_model"} == {COMMIT}
    assert first["final"] < first["first"] - 0.01

    runs = server.volume_tree(RUNS) / "runs"
    adapter = tmp_path / "adapter"
    shutil.copytree(runs / first["key"] / "model", adapter, ignore=shutil.ignore_patterns("checkpoint-*"))
    hub.add("owner/adapter", adapter, commit=ADAPTER_COMMIT)
    hub.add("owner/words", TINY)
    named = ("tokenizer_config=owner/words", "lora_model_dir=owner/adapter")
    (second,) = on_modal.json(*named, *SHORT)["runs"]
    assert second["first"] == pytest.approx(first["final"], abs=5e-5), "the adapter is where it starts from"
    assert Counter(call.function for call in server.function_calls()) == {"fetch": 3, "preprocess": 2, "train": 2}
    assert hub.asked[f"models/owner/tiny/{WEIGHTS}"] == 1
    assert hub.asked["models/owner/adapter/adapter_model.safetensors"] == 1
    assert hub.asked["models/owner/words/tokenizer.json"] == 1
    assert hub.asked[f"models/owner/words/{WEIGHTS}"] == 0, "of a tokenizer's repository no weights are read"
    given = yaml.safe_load((runs / second["key"] / "attempt-1" / "config.yml").read_text())["lora_model_dir"]
    assert Path(given).name == ADAPTER_COMMIT


def test_a_hub_model_is_fetched_once_for_two_sweeps_at_a_time_and_again_after_its_removal(
    hub: Hub, fetching: ModalServer, tmp_path: Path
) -> None:
    """Both have runs of the same two datasets."""
    on_modal = machine(fetching, tmp_path / "machine", HF_ENDPOINT=hub.url)
    words = ("-m", "base_model=owner/tiny", "sequence_len=64,128", *SHORT)
    fetched = fetching.hold("VolumeCommit", nth=2)
    first = on_modal.start(*words, "lora=r4")
    fetching.wait_until(lambda: fetching.function_calls("fetch"), 60)
    second = on_modal.start(*words, "lora=r8")
    fetching.wait_until(lambda: any(key.startswith("waiting/") for key in fetching.dict_items(CLAIMS)), 60)
    fetched()
    for client in (first, second):
        said, _ = client.communicate(timeout=120)
        assert client.returncode == 0, said
    calls = Counter(call.function for call in fetching.function_calls())
    assert (calls["fetch"], calls["train"]) == (1, 4)
    assert hub.served[WEIGHTS] == 1
    removals = [["volume", "rm", "-r", CACHE, folder] for folder in ("hub", "prepared")]
    subprocess.run(
        [sys.executable, MODAL_COMMANDS], input=json.dumps(removals), text=True,
        env={**os.environ, **fetching.environment()}, check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    again = on_modal.run("base_model=owner/tiny", "sequence_len=64", "lora=r16", *SHORT)
    assert again.returncode == 0, again.stderr
    assert hub.served[WEIGHTS] == 2
    there = fetching.volume_tree(CACHE) / "hub" / "models--owner--tiny" / "snapshots" / COMMIT
    assert (there / WEIGHTS).read_bytes() == (TINY / WEIGHTS).read_bytes()


def test_a_model_that_the_hub_does_not_give_blocks_its_runs_and_says_so(
    alone: Axosweep, hub: Hub, fetching: ModalServer
) -> None:
    """It is pinned, so that this machine does not look it up."""
    on_modal = Axosweep(alone.store, alone.folder, fetching.environment())
    done = on_modal.run("base_model=owner/gone", f"revision_of_model={COMMIT}", *SHORT)
    assert done.returncode == 1
    (row,) = on_modal.json("compare")["runs"]
    assert not fetching.function_calls("train")
    assert row["status"] == "blocked"
    assert "owner/gone" in row["message"]
    assert hub.refused[404, f"/api/models/owner/gone/tree/{COMMIT}"] == 1, "it has refused, and is not tried again"
