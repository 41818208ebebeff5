"""What is deployed to Modal, as the unmodified client sends it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.deployment import Deployment, build_app
from tests.modal_server import ModalServer
from tests.modal_server.fixture import client_of

ROOT = Path(__file__).resolve().parents[2]


def shipped(**changes: Any) -> Deployment:
    node = yaml.safe_load((ROOT / "conf" / "executor" / "modal.yaml").read_text())["modal"]
    lists = {name: tuple(value) for name, value in node.items() if isinstance(value, list)}
    return replace(Deployment(**node | lists), **changes)


@pytest.fixture
def server() -> Iterator[ModalServer]:
    with ModalServer() as server:
        server.set_secret(shipped().secret, {"HUGGINGFACE_TOKEN": "hf_test"})
        yield server


def test_the_image_is_the_locked_trainer_on_cuda(server: ModalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(server, monkeypatch) as client:
        build_app(shipped(packages=("extra==1.0",), apt=("htop",))).deploy(client=client)
    layers = server.image_layers("train")
    assert layers[0] == "FROM nvidia/cuda:12.8.1-devel-ubuntu24.04"
    assert "RUN apt-get install -y git build-essential htop" in layers
    (sync,) = [layer for layer in layers if "uv pip sync" in layer]
    assert "--require-hashes --compile-bytecode /trainer/requirements.lock" in sync
    assert layers.index(sync) < layers.index("RUN uv pip install --system --no-deps extra==1.0")
    assert "ENV AXOLOTL_DO_NOT_TRACK=1" in layers


def test_trainers_read_the_cache_and_write_their_runs(server: ModalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_of(server, monkeypatch) as client:
        build_app(shipped(timeout_hours=3)).deploy(client=client)
    specs = {name: versions[-1] for name, versions in server.function_specs().items()}
    assert set(specs) == {"fetch", "preprocess", "train"}
    mounts = {mount.mount_path: mount.read_only for mount in specs["train"].volume_mounts}
    assert mounts == {"/cache": True, "/data": False}
    for name in ("fetch", "preprocess"):
        assert not any(mount.read_only for mount in specs[name].volume_mounts)
    assert {spec.timeout_secs for spec in specs.values()} == {3 * 3600}
    assert not any(spec.resources.gpu_config.gpu_type for spec in specs.values()), "a GPU is asked for run by run"


def test_an_app_is_named_after_everything_that_decides_what_it_does() -> None:
    names = {
        shipped().app_name,
        shipped(image="nvidia/cuda:13.0.0-devel-ubuntu24.04").app_name,
        shipped(packages=("extra==1.0",)).app_name,
        shipped(runs_volume="other").app_name,
    }
    assert len(names) == 4
    assert shipped().app_name == shipped().app_name
