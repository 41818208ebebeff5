"""What is deployed to Modal, as the unmodified client sends it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import modal
import pytest

from modal_app.cloud.deployment import UV, build_app
from modal_app.cloud.settings import LOCK, Deployment
from tests.modal_app.deployments import ROOT, shipped
from tests.modal_server import ModalServer
from tests.modal_server.fixture import client_of

FLASH = "kernels-community/flash-attn2@v3"
OFFICIAL = "axolotlai/axolotl@sha256:" + "0123456789abcdef" * 4

BASE = """\
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04
COPY /python/. /usr/local
RUN ln -s /usr/local/bin/python3 /usr/local/bin/python
ENV TERMINFO_DIRS=/etc/terminfo:/lib/terminfo:/usr/share/terminfo:/usr/lib/terminfo
ENTRYPOINT []
RUN apt-get update
RUN apt-get install -y git build-essential"""
TRAINER = f"""\
COPY --from=ghcr.io/astral-sh/uv:{UV} /uv /.uv/uv
COPY /.0_requirements.lock /.uv/0/requirements.lock
RUN /.uv/uv pip install --python $(command -v python) --compile-bytecode --no-deps --require-hashes \
--requirements /.uv/0/requirements.lock"""
PACKAGES = f"""\
COPY --from=ghcr.io/astral-sh/uv:{UV} /uv /.uv/uv
RUN /.uv/uv pip install --python $(command -v python) --compile-bytecode --no-deps einops==0.8.1"""
KERNELS = f"""\
COPY . /
RUN python /trainer/attention.py /kernels {FLASH}
ENV LOCAL_KERNELS=kernels-community/flash-attn2=/kernels/kernels-community/flash-attn2"""
SETTINGS = """\
ENV AXOLOTL_DO_NOT_TRACK=1
ENV DO_NOT_TRACK=1
ENV HF_HUB_DISABLE_TELEMETRY=1
ENV HF_XET_HIGH_PERFORMANCE=1
ENV TOKENIZERS_PARALLELISM=false"""

OWN = {"fetch", "preprocess", "train", "after", "notify"}
"""The functions of every deployment."""


@pytest.fixture
def server() -> Iterator[ModalServer]:
    with ModalServer() as server:
        server.set_secret(shipped().secret, {"HUGGINGFACE_TOKEN": "hf_test"})
        yield server


@pytest.fixture
def deploy(server: ModalServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Deployment], list[str]]]:
    """Deploys, and returns the Dockerfile lines of the image without those that only name the layer below."""
    with client_of(server, monkeypatch) as client:

        def run(deployment: Deployment) -> list[str]:
            build_app(deployment).deploy(client=client)
            return [line for line in server.image_layers("train") if line != "FROM base"]

        yield run


def lines(*parts: str) -> list[str]:
    return "\n".join(parts).splitlines()


def test_the_image_is_the_locked_trainer_on_cuda(deploy: Callable[[Deployment], list[str]]) -> None:
    assert deploy(shipped()) == lines(BASE, TRAINER, SETTINGS)


def test_more_packages_and_kernels_are_layers_above_the_trainer(deploy: Callable[[Deployment], list[str]]) -> None:
    layers = deploy(shipped(apt=["htop"], packages=["einops==0.8.1"], kernels=(FLASH,)))
    assert layers == lines(BASE + " htop", TRAINER, PACKAGES, KERNELS, SETTINGS)


def test_an_official_image_keeps_its_own_trainer_and_loses_its_jupyterlab(
    deploy: Callable[[Deployment], list[str]],
) -> None:
    layers = deploy(shipped(trainer="image", image=OFFICIAL))
    assert layers[:2] == [f"FROM {OFFICIAL}", "ENTRYPOINT []"], "no other Python is added"
    assert not any("requirements.lock" in line for line in layers)
    (check,) = [line for line in layers if "m.version('axolotl')" in line]
    (version,) = re.findall(r"^axolotl==(\S+)", LOCK.read_text(), re.MULTILINE)
    assert f"assert v == '{version}'" in check


def test_nothing_in_the_image_is_whatever_is_newest(deploy: Callable[[Deployment], list[str]]) -> None:
    layers = deploy(shipped(kernels=(FLASH,)))
    assert not any("latest" in line or "pip install uv" in line for line in layers)
    own_lock = (ROOT / "requirements.lock").read_text()
    assert f"\nuv=={UV} " in own_lock, "the image builds the trainer with another uv than this machine does"


def test_the_base_has_the_cuda_that_the_locked_torch_was_built_for() -> None:
    (runtime,) = re.findall(r"^cuda-toolkit==(\d+\.\d+)\.", LOCK.read_text(), re.MULTILINE)
    assert shipped().image.startswith(f"nvidia/cuda:{runtime}.")


@pytest.mark.slow
def test_the_lock_can_be_installed_as_the_image_installs_it(
    deploy: Callable[[Deployment], list[str]], tmp_path: Path
) -> None:
    """A dry run of exactly this command: with dependencies it would be refused, since Axolotl pins another
    zstandard."""
    (command,) = [line.removeprefix("RUN ") for line in deploy(shipped()) if "requirements.lock" in line][1:]
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"], check=True)
    for there, here in (
        ("/.uv/uv", f"{uv}"),
        ("$(command -v python)", f"{tmp_path}/venv/bin/python --dry-run"),
        ("/.uv/0/requirements.lock", f"{LOCK}"),
    ):
        assert there in command
        command = command.replace(there, here)
    done = subprocess.run(command.split(), capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    assert "+ axolotl==" in done.stderr


def test_trainers_read_the_cache_and_write_their_runs(
    deploy: Callable[[Deployment], list[str]], server: ModalServer
) -> None:
    deploy(shipped(timeout_hours=3))
    specs = {name: versions[-1] for name, versions in server.function_specs().items()}
    assert set(specs) == OWN
    assert {len(spec.mount_ids) for spec in specs.values()} == {2}, "Modal's client and the sources, each once"
    for name in ("train", "after"):
        mounts = {mount.mount_path: mount.read_only for mount in specs[name].volume_mounts}
        assert mounts == {"/cache": True, "/data": False}
    for name in ("fetch", "preprocess"):
        assert not any(mount.read_only for mount in specs[name].volume_mounts)
    assert {spec.timeout_secs for name, spec in specs.items() if name != "notify"} == {3 * 3600}
    assert (specs["notify"].timeout_secs, len(specs["notify"].volume_mounts)) == (60, 0)
    assert {spec.retry_policy.retries for spec in specs.values()} == {8}, "more than the attempts of a run"
    assert {name for name, spec in specs.items() if spec.single_use_containers} == {"train", "after"}
    deploy(shipped(reused=True))
    assert not server.function_specs()["train"][-1].single_use_containers
    assert server.function_specs()["after"][-1].single_use_containers
    assert {spec.resources.ephemeral_disk_mb for spec in specs.values()} == {0}, "as much as Modal gives by itself"
    deploy(shipped(disk_gib=1000))
    disks = {name: spec[-1].resources.ephemeral_disk_mb for name, spec in server.function_specs().items()}
    assert {name for name, disk in disks.items() if disk} == {"train", "after"}
    assert disks["train"] == 1000 * 1024
    assert shipped(disk_gib=1000).reserved(1).memory_gib == 50, "a requested disk is billed as memory"
    assert not any(spec.resources.gpu_config.gpu_type for spec in specs.values()), "each run requests its own GPU"
    assert {spec.startup_timeout_secs for spec in specs.values()} == {3600}, "else one that hangs is rented for a day"
    reserved = {name: (spec.resources.milli_cpu, spec.resources.memory_mb) for name, spec in specs.items()}
    of_calls = {"train": (0, 0), "after": (0, 0)}  # as the GPU is
    assert reserved == {"fetch": (4000, 16384), "preprocess": (4000, 16384), "notify": (0, 0)} | of_calls


def test_a_list_of_gpus_is_a_function_of_its_own(
    deploy: Callable[[Deployment], list[str]], server: ModalServer
) -> None:
    """One function for each list, in the order of the list, and equal otherwise."""
    deploy(shipped(gpu_lists=(("H100:2", "A100-80GB:2"), ("L40S:1", "A10:1", "L4:1")), memory_gib=20))
    specs = server.function_specs()
    assert set(specs) == OWN | {"train_H100x2_A100-80GBx2", "train_L40Sx1_A10x1_L4x1"}
    gpus = [one.resources.gpu_config for one in specs["train_H100x2_A100-80GBx2"]]
    assert [(one.gpu_type, one.count) for one in gpus] == [("H100", 2), ("A100-80GB", 2)]
    assert [one.resources.gpu_config.gpu_type for one in specs["train_L40Sx1_A10x1_L4x1"]] == ["L40S", "A10", "L4"]
    for name, cards in (("train_H100x2_A100-80GBx2", 2), ("train_L40Sx1_A10x1_L4x1", 1)):
        reserved = {(one.resources.milli_cpu, one.resources.memory_mb) for one in specs[name]}
        assert reserved == {(cards * 2000, cards * 20480)}
    for spec in specs["train_H100x2_A100-80GBx2"]:
        plain = specs["train"][-1]
        assert (spec.implementation_name, spec.module_name) == (plain.implementation_name, plain.module_name)
        assert (spec.image_id, spec.timeout_secs, spec.secret_ids) == (
            plain.image_id, plain.timeout_secs, plain.secret_ids
        )  # fmt: skip
        assert list(spec.volume_mounts) == list(plain.volume_mounts)


def test_an_app_is_named_after_everything_that_decides_what_it_does() -> None:
    names = {
        shipped().app_name,
        shipped(image="nvidia/cuda:13.1.0-devel-ubuntu24.04").app_name,
        shipped(packages=["extra==1.0"]).app_name,
        shipped(runs_volume="other").app_name,
        shipped(kernels=(FLASH,)).app_name,
        shipped(gpu_lists=(("H100:2", "A100-80GB:2"),)).app_name,
        shipped(gpu_lists=(("A100-80GB:2", "H100:2"),)).app_name,
    }
    assert len(names) == 7
    assert shipped().app_name == shipped().app_name


def test_what_modal_takes_for_a_name_is_what_is_deployed(
    deploy: Callable[[Deployment], list[str]], server: ModalServer
) -> None:
    """The client checks a function's name when it is looked up: it takes a name with a dot for a class."""
    deployment = shipped(gpu_lists=(("H100:2", "A100-80GB:2"), tuple(f"GPU-{number}:8" for number in range(12))))
    deploy(deployment)
    names = set(server.function_specs()) - OWN
    assert len(names) == 2
    for name in names:
        modal.Function.from_name(deployment.app_name, name).hydrate()
