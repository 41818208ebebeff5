"""What runs on Modal read from the hub beside their base model: fetched once, found offline, at the pinned commit."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from modal_app.layout import Store
from runner import trainer_environment
from tests.end_to_end.axosweep import Axosweep
from tests.hub_server import Hub, serve_hub
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

TINY = Path(__file__).resolve().parents[2] / "tiny" / "model"
ADAPTER_COMMIT = "adab7e5" + "0" * 33
WORDS = ("-m", "learning_rate=1e-3,2e-3", "max_steps=3", "tracking=disabled")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub("owner/tiny", TINY) as hub:
        yield hub


@pytest.fixture
def server(hub: Hub) -> Iterator[ModalServer]:
    environment = {"HF_ENDPOINT": hub.url}
    settings = Settings(
        container_python=trainer_environment.find(), grace_s=10, container_environment=environment
    )  # fmt: skip
    with ModalServer(settings) as server:
        server.set_secret("secrets-hf-wandb", {"HUGGINGFACE_TOKEN": "hf_test"})
        yield server


def losses(axosweep: Axosweep) -> list[tuple[float, float]]:
    return sorted((row["first"], row["final"]) for row in axosweep.json("compare")["runs"])


def test_a_hub_tokenizer_and_a_hub_adapter_beside_local_weights_are_fetched_once_and_read_offline(
    axosweep: Axosweep, hub: Hub, server: ModalServer, tmp_path: Path
) -> None:
    here = Axosweep(Store(tmp_path / "here"), axosweep.folder)
    assert here.run("max_steps=5", "tracking=disabled").returncode == 0
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    for path in next(here.store.runs.glob("*/model")).iterdir():
        if path.is_file():
            shutil.copy(path, adapter)
    hub.add("owner/adapter", adapter, commit=ADAPTER_COMMIT)
    assert here.run(*WORDS, f"lora_model_dir={adapter}").returncode == 0

    on_modal = Axosweep(axosweep.store, axosweep.folder, {**server.environment(), "HF_ENDPOINT": hub.url})
    named = ("tokenizer_config=owner/tiny", "lora_model_dir=owner/adapter", "executor=modal")
    done = on_modal.run(*WORDS, *named)
    assert done.returncode == 0, done.stdout + done.stderr
    assert losses(on_modal) == losses(here), "the adapter is where they start from"
    calls = Counter(call.function for call in server.function_calls())
    assert calls == {"fetch": 2, "preprocess": 1, "train": 2}
    assert hub.asked["models/owner/adapter/adapter_model.safetensors"] == 1
    assert hub.asked["models/owner/tiny/tokenizer.json"] == 1
    assert hub.asked["models/owner/tiny/model.safetensors"] == 0, "of a tokenizer's repository no weights are read"
    runs = server.volume_tree("axosweep-runs") / "runs"
    given = [yaml.safe_load(path.read_text())["lora_model_dir"] for path in runs.glob("*/attempt-1/config.yml")]
    assert [Path(path).name for path in given] == [ADAPTER_COMMIT] * 2
