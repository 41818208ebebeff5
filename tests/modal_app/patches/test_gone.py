"""If a library lacks what is patched, time savers are skipped with one message, and corrections fail the step."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from modal_app.patches.apply import apply_trainer_patches, apply_training_patches
from modal_app.patches.patch import CorrectionMissing
from modal_app.process.failures import classify
from modal_app.store.layout import Store
from modal_app.store.sources import RUN
from modal_app.store.step import Device, FailureReason, OutcomeStatus
from tests.modal_app.hollow_trainer import found, make_trainer, probing
from tests.modal_app.hollow_trainer import make_store as make_hollow_store
from tests.modal_app.steps import ENVIRONMENT, PACKAGE, outcome, train_step

SCRIPT = Path(__file__).with_name("gone_script.py")
LOOK = Path(__file__).with_name("look_probe.py").read_text()
OTHER_VERSION = Path(__file__).with_name("other_version_script.py")


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """The log with a transformers that has moved a check, and uses SciPy nowhere."""
    for name, text in {
        "transformers/__init__.py": "",
        "transformers/utils.py": "def is_scipy_available(): return True\n",
        "transformers/generation.py": "",
        "transformers/loss/__init__.py": "",
        "transformers/loss/loss_utils.py": "",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    metadata = tmp_path / "transformers-9.1.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 9.1\n")
    return tmp_path


def said_by_imports(packages: Path, device: Device) -> list[str]:
    done = subprocess.run(
        [sys.executable, SCRIPT, device],
        env={"PYTHONPATH": os.pathsep.join((str(packages), str(PACKAGE.parent)))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "imported\nimported\n"), done.stderr
    return done.stderr.splitlines()


def test_a_time_saver_whose_target_is_gone_is_skipped_and_says_so_once(packages: Path) -> None:
    lines = [line for line in said_by_imports(packages, Device.CPU) if "scikit-learn" in line or "SciPy" in line]
    assert lines == [
        "axosweep: skipping the patch 'leave out scikit-learn', which only saves time (transformers 9.1 is installed, "
        "the patch is for 5.20.1: transformers.utils has no is_sklearn_available)",
        "axosweep: skipping the patch 'leave out SciPy', which only saves time (transformers 9.1 is installed, "
        "the patch is for 5.20.1: no module of transformers.loss checks whether SciPy is available)",
    ]


def test_on_cuda_nothing_is_skipped_since_nothing_is_tried(packages: Path) -> None:
    assert said_by_imports(packages, Device.CUDA) == []


@pytest.mark.parametrize(("device", "patched"), [(Device.CPU, True), (Device.CUDA, False)])
def test_a_worker_imports_plainly_for_cuda(device: Device, patched: bool, tmp_path: Path) -> None:
    python, store = make_trainer(tmp_path / "trainer"), make_hollow_store(tmp_path / "store")
    step = replace(probing("run", LOOK), device=device)
    subprocess.run([python, RUN, "worker", "--store", store.root], input=step.to_json(), text=True, check=False)
    assert found(store, "run") == {"frozen": patched, "own": not patched}


def test_a_correction_whose_target_is_gone_fails_the_step_and_says_why() -> None:
    trainer = SimpleNamespace(args=SimpleNamespace())
    with pytest.raises(CorrectionMissing, match="logging_nan_inf_filter") as raised:
        apply_trainer_patches(trainer, None)
    failure = classify(raised.value, "config")
    assert failure.reason is FailureReason.ERROR
    assert "'log losses as they are' cannot be applied and is needed" in failure.message
    assert "the patch is for 5.20.1" in failure.message


def test_a_correction_that_is_not_needed_is_not_missed() -> None:
    trainer = SimpleNamespace(args=SimpleNamespace(logging_nan_inf_filter=True))
    apply_trainer_patches(trainer, None)
    with pytest.raises(CorrectionMissing, match="_load_optimizer_and_scheduler"):
        apply_trainer_patches(trainer, 6)


def test_a_loss_that_could_not_be_restored_later_is_missed_when_training_begins() -> None:
    with pytest.raises(CorrectionMissing, match="_tr_loss"):
        apply_training_patches(SimpleNamespace(), None)


@pytest.mark.slow
@pytest.mark.usefixtures("warm")
def test_a_real_run_fails_without_a_correction(trainer: Path, store: Store) -> None:
    step = train_step("without-a-correction", max_steps=2, eval_steps=2, save_steps=2)
    command: list[str | Path] = [trainer, OTHER_VERSION, "transformers.training_args", RUN, "worker"]
    command += ["--store", store.root]
    subprocess.run(command, input=step.to_json(), text=True, env=ENVIRONMENT, check=False)
    ended = outcome(store, step)
    assert (ended.status, ended.reason) == (OutcomeStatus.FAILED, FailureReason.ERROR)
    assert "'log losses as they are' cannot be applied and is needed (transformers 5.20.1" in ended.message
