"""Every process that writes reports a full disk, with the file and what frees space."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app import worker
from modal_app.process.failures import classify
from modal_app.store import checkpoints
from modal_app.store.full_disk import FREE_SOME, full_disk, is_full
from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Step, StepKind, write_atomically


class SafetensorError(Exception):
    """An error as safetensors raises it: without an errno."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", folder], capture_output=True)
    if mount.returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def wrapped() -> Exception:
    """An error as `datasets` wraps that of its writer."""
    try:
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise ValueError("An error occurred while generating the dataset") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "/data/checkpoint-5/optimizer.pt"),
        OSError(errno.EDQUOT, "Disk quota exceeded", "/data/rows.arrow"),
        wrapped(),
        SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_a_failure_of_its_own(error: Exception) -> None:
    for during in ("prepare", "train", "save"):
        failure = classify(error, during)
        assert failure.reason is FailureReason.DISK
        assert failure.message.endswith(FREE_SOME)
    if isinstance(error, OSError):
        assert classify(error, "train").message.startswith(f"{error.filename}: {error.strerror}")


@pytest.mark.parametrize("before", ["/", "../"], ids=["by its path", "as the trainer names it"])
def test_a_containers_own_disk_is_made_larger_by_a_request(before: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    file = f"{before}scratch/train-run-1/draft/model/weights"
    assert "executor.modal.disk_gib=1000" in full_disk(OSError(errno.ENOSPC, "No space left on device", file))


def test_another_error_is_not_a_full_disk(tmp_path: Path) -> None:
    for error in (FileNotFoundError(errno.ENOENT, "No such file", "x"), RuntimeError("shape mismatch"), ValueError()):
        assert full_disk(error, [tmp_path, Path("/proc/nope")]) == ""


def test_pytorchs_writer_does_not_say_why_so_the_disk_is_looked_at(small_disk: Path) -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:815] . PytorchStreamWriter failed writing file data/0")
    assert full_disk(error, [small_disk]) == ""
    fill(small_disk / "filler")
    assert is_full(small_disk / "not" / "there")
    assert full_disk(error, [small_disk]).startswith(f"{small_disk}: No space left on device.")


def test_a_write_that_fails_names_its_file_and_leaves_nothing(small_disk: Path) -> None:
    fill(small_disk / "filler")
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(small_disk / "plan.json", "x" * 9000)
    assert caught.value.filename == str(small_disk / "plan.json")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


def test_a_worker_gives_up_a_cut_off_checkpoint_to_write_why_it_ended(small_disk: Path) -> None:
    store = Store(small_disk)
    step = Step(StepKind.TRAIN, "run", {}, "data")
    folder = store.folder(step.kind, step.key)
    attempt = folder.attempt(1)
    attempt.path.mkdir(parents=True)
    whole, cut = folder.model / "checkpoint-1", folder.model / "checkpoint-2"
    for checkpoint in (whole, cut):
        checkpoint.mkdir(parents=True)
    (whole / "weights").write_text("weights")
    checkpoints.mark_complete(whole, {})
    fill(cut / "weights")
    failed = Outcome(OutcomeStatus.FAILED, 1, 1.0, 2.0, FailureReason.DISK, "no room")
    worker._record(failed, step, folder, attempt)
    state = observe(store, step.kind, step.key)
    assert (state.phase, state.outcome) == (Phase.FAILED, failed)
    assert checkpoints.newest_step(folder.model) == 1
    assert not cut.exists()


def test_a_lost_run_on_a_full_disk_says_that_it_is_full(small_disk: Path) -> None:
    folder = Store(small_disk).folder(StepKind.TRAIN, "run")
    folder.attempt(1).path.mkdir(parents=True)
    fill(small_disk / "filler")
    outcome = observe(Store(small_disk), StepKind.TRAIN, "run").outcome
    assert outcome is not None
    assert f"the disk of {folder.attempt(1).path} is full. {FREE_SOME}" in outcome.message
