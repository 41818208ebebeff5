"""The attention kernel that transformers loads: put into an image, found there offline, and used by a training.

The stand-in computes with torch what the real one computes on a GPU. The real one has not been run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.process import attention
from modal_app.store.layout import Store
from modal_app.store.sources import HERE, RUN
from modal_app.store.step import Step
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


def bring(trainer: Path, hub: Hub, home: Path, *kernels: str) -> subprocess.CompletedProcess[str]:
    """Download the kernel as the image's build does."""
    command: list[str | Path] = [trainer, HERE / "process" / "attention.py", home / "kernels", *kernels]
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


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


@pytest.mark.slow
def test_transformers_and_axolotl_find_an_images_kernel_offline(trainer: Path, hub: Hub, tmp_path: Path) -> None:
    hub.add(
        REPOSITORY, kernel_repository(tmp_path / "hub"), kind="kernels", commit=KERNEL_COMMIT, branches=("v3",)
    )  # fmt: skip
    brought = bring(trainer, hub, tmp_path, KERNEL)
    assert brought.returncode == 0, brought.stderr
    assert brought.stdout.strip() == f"{KERNEL}: {KERNEL_COMMIT}"
    assert set(hub.served) == {"metadata.json", "__init__.py"}, "builds for another torch are not downloaded"
    hub.served.clear()

    environment = offline(tmp_path) | {"HF_ENDPOINT": hub.url}
    done = subprocess.run([trainer, "-P", LOOK_UP], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["available"] is True
    assert found["failure"] is None
    kernel = tmp_path / "kernels" / REPOSITORY
    assert Path(found["file"]).is_relative_to(kernel)
    assert kernel.resolve().name == KERNEL_COMMIT
    assert not hub.served
    theirs = {name: kernel for name, kernel in found["repositories"].items() if kernel.startswith("kernels-community/")}
    assert theirs == attention.REPOSITORIES
    assert attention.VERSIONS.items() <= found["versions"].items()


@pytest.mark.slow
def test_training_goes_through_an_images_kernel_to_the_losses_of_torchs_own_attention(
    trainer: Path, warm: Warm, store: Store, hub: Hub, tmp_path: Path
) -> None:
    hub.add(REPOSITORY, kernel_repository(tmp_path / "hub"), kind="kernels", branches=("v3",))
    assert bring(trainer, hub, tmp_path, KERNEL).returncode == 0
    plain = train_step("torchs-own", max_steps=10, flash_attention=None, attn_implementation="sdpa", lora_dropout=0)
    assert warm.run(plain) == 0
    asked = train_step("by-kernel", max_steps=10, flash_attention=None, attn_implementation="flash_attention_2",
                       lora_dropout=0)  # fmt: skip
    done = run(trainer, store, asked, offline(tmp_path))
    log = store.folder(asked.kind, asked.key).attempts()[-1].log.read_text()
    assert done.returncode == 0, log[-3000:]
    assert f"using `{REPOSITORY}` from the `kernels` library" in log
    assert losses(store, asked) == pytest.approx(losses(store, plain), rel=2e-3)
    assert outcome(store, asked).facts["kernel"] == {"name": KERNEL, "commit": "c0ffee" + "0" * 34}


def run(trainer: Path, store: Store, step: Step, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [trainer, RUN, "worker", "--store", store.root]
    return subprocess.run(command, input=step.to_json(), text=True, env=environment, check=False)


@pytest.mark.slow
def test_a_kernel_that_cannot_be_trusted_or_run_stops_the_build(trainer: Path, hub: Hub, tmp_path: Path) -> None:
    folder = kernel_repository(tmp_path / "hub", python_depends=("nvidia-cutlass-dsl",))
    hub.add(REPOSITORY, folder, kind="kernels", branches=("v3",))
    lacking = bring(trainer, hub, tmp_path / "a", KERNEL)
    assert lacking.returncode != 0
    assert "nvidia-cutlass-dsl" in lacking.stderr
    hub.trusted = False
    distrusted = bring(trainer, hub, tmp_path / "b", KERNEL)
    assert distrusted.returncode != 0
    assert "not from a trusted publisher" in distrusted.stderr
