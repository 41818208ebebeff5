"""The attention kernel that transformers loads: put into an image, found there offline, and used by a training.

The stand-in computes with torch what the real one computes on a GPU. The real one has not been run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modal_app.process import attention
from modal_app.store.layout import Store
from modal_app.store.sources import HERE, RUN
from modal_app.store.step import Step
from tests.fork_server import ForkServer, fork_server
from tests.hub_server import KERNEL_COMMIT, Hub, serve_hub
from tests.modal_app.steps import ENVIRONMENT, Warm, losses, outcome, train_step

REPOSITORY = "kernels-community/flash-attn2"
KERNEL = f"{REPOSITORY}@v3"
STAND_IN = Path(__file__).with_name("flash_attention_stand_in.py")
LOOK_UP = Path(__file__).with_name("kernel_lookup_script.py")


def kernel_repository(folder: Path, *, python_depends: tuple[str, ...] = ()) -> Path:
    """A kernel with a build that fits any torch with CUDA, and one for another torch, which should not be
    downloaded."""
    build, other = folder / "build" / "torch-cuda", folder / "build" / "torch210-cxx11-cu130-x86_64-linux"
    for path in (build, other):
        path.mkdir(parents=True)
    described = {
        "id": "_flash_attn2_cuda_0", "name": "flash-attn2", "version": 3, "license": "BSD-3-Clause",
        "python-depends": list(python_depends), "backend": {"type": "cuda"},
    }  # fmt: skip
    (build / "metadata.json").write_text(json.dumps(described))
    shutil.copy(STAND_IN, build / "__init__.py")
    (other / "kernel.so").write_text("for another torch")
    return folder


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub() as hub:
        yield hub


@pytest.fixture(scope="module")
def with_torch(trainer: Path) -> Iterator[ForkServer]:
    """Its forks find no module of this project, as a build does."""
    with fork_server("torch", options=("-I",), python=trainer) as server:
        yield server


def bring(with_torch: ForkServer, hub: Hub, home: Path, *kernels: str) -> subprocess.CompletedProcess[str]:
    """Download the kernel as the image's build does."""
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf")}
    words = (str(home / "kernels"), *kernels)
    return with_torch.run(HERE / "process" / "attention.py", *words, environment=environment, timeout_s=300)


def offline(home: Path) -> dict[str, str]:
    """The environment of a trainer in that image."""
    named = attention.local_kernels([KERNEL], home / "kernels")
    return ENVIRONMENT | {"LOCAL_KERNELS": named, "HF_HOME": str(home / "hf"), "AXOLOTL_DO_NOT_TRACK": "1"}


@pytest.mark.parametrize(
    ("config", "kernel"),
    [
        ({"attn_implementation": "flash_attention_2"}, KERNEL),
        ({"flash_attention": True}, KERNEL),
        ({"gemma4_hybrid_attn_impl": True}, KERNEL),
        ({"attn_implementation": "flash_attention_3"}, "kernels-community/vllm-flash-attn3@v1"),
        ({"attn_implementation": "kernels-community/flash-attn2"}, KERNEL),
        ({"attn_implementation": "someone/attention@main:function"}, "someone/attention@main"),
        ({"attn_implementation": "sdpa", "flash_attention": None}, ""),
        ({"sdp_attention": True}, ""),
        ({}, ""),
    ],
)
def test_a_config_names_the_kernel_that_its_attention_loads(config: dict[str, Any], kernel: str) -> None:
    assert attention.kernel_of(config) == kernel


@dataclass(frozen=True)
class Image:
    """With a kernel, with which a run was trained offline."""

    home: Path
    printed: str
    """By the build."""
    downloaded: set[str]
    step: Step
    found: dict[str, Any]
    """What transformers and Axolotl find of the kernel in the process of that run."""
    requested: set[str]
    """Of the hub, by that process."""


@pytest.fixture(scope="module")
def image(
    trainer: Path, with_torch: ForkServer, warm: Warm, store: Store, tmp_path_factory: pytest.TempPathFactory
) -> Image:
    """`warm` has prepared the dataset."""
    home = tmp_path_factory.mktemp("image")
    step = train_step("by-kernel", max_steps=10, flash_attention=None, attn_implementation="flash_attention_2",
                      lora_dropout=0)  # fmt: skip
    with serve_hub() as hub:
        hub.add(REPOSITORY, kernel_repository(home / "hub"), kind="kernels", commit=KERNEL_COMMIT, branches=("v3",))
        built = bring(with_torch, hub, home, KERNEL)
        assert built.returncode == 0, built.stderr
        downloaded = set(hub.served)
        hub.served.clear()
        done = subprocess.run(
            [trainer, LOOK_UP, RUN, "worker", "--store", store.root], input=step.to_json(), capture_output=True,
            text=True, env=offline(home) | {"HF_ENDPOINT": hub.url}, check=False,
        )  # fmt: skip
        requested = set(hub.served)
    assert done.returncode == 0, done.stderr + store.folder(step.kind, step.key).attempts()[-1].log.read_text()[-3000:]
    return Image(home, built.stdout, downloaded, step, json.loads(done.stdout.splitlines()[-1]), requested)


@pytest.mark.slow
def test_a_build_downloads_the_kernel_for_its_own_torch(image: Image) -> None:
    assert image.printed.strip() == f"{KERNEL}: {KERNEL_COMMIT}"
    assert image.downloaded == {"metadata.json", "__init__.py"}, "builds for another torch are not downloaded"


@pytest.mark.slow
def test_transformers_and_axolotl_find_an_images_kernel_offline(image: Image) -> None:
    found = image.found
    assert found["available"] is True
    assert found["failure"] is None
    kernel = image.home / "kernels" / REPOSITORY
    assert Path(found["file"]).is_relative_to(kernel)
    assert kernel.resolve().name == KERNEL_COMMIT
    assert not image.requested
    theirs = {name: kernel for name, kernel in found["repositories"].items() if kernel.startswith("kernels-community/")}
    assert theirs == attention.REPOSITORIES
    assert attention.VERSIONS.items() <= found["versions"].items()


@pytest.mark.slow
def test_training_goes_through_an_images_kernel_to_the_losses_of_torchs_own_attention(
    image: Image, warm: Warm, store: Store
) -> None:
    plain = train_step("torchs-own", max_steps=10, flash_attention=None, attn_implementation="sdpa", lora_dropout=0)
    assert warm.run(plain) == 0
    log = store.folder(image.step.kind, image.step.key).attempts()[-1].log.read_text()
    assert f"using `{REPOSITORY}` from the `kernels` library" in log
    assert losses(store, image.step) == pytest.approx(losses(store, plain), rel=2e-3)
    assert outcome(store, image.step).facts["kernel"] == {"name": KERNEL, "commit": KERNEL_COMMIT}


@pytest.mark.slow
def test_a_kernel_that_cannot_be_trusted_or_run_stops_the_build(
    with_torch: ForkServer, hub: Hub, tmp_path: Path
) -> None:
    folder = kernel_repository(tmp_path / "hub", python_depends=("nvidia-cutlass-dsl",))
    hub.add(REPOSITORY, folder, kind="kernels", branches=("v3",))
    lacking = bring(with_torch, hub, tmp_path / "a", KERNEL)
    assert lacking.returncode != 0
    assert "nvidia-cutlass-dsl" in lacking.stderr
    hub.trusted = False
    distrusted = bring(with_torch, hub, tmp_path / "b", KERNEL)
    assert distrusted.returncode != 0
    assert "not from a trusted publisher" in distrusted.stderr
