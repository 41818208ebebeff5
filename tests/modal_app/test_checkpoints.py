from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from modal_app.store import checkpoints


def save(model: Path, step: int, *, last: int = 40, marked: bool = True) -> Path:
    checkpoint = model / f"checkpoint-{step}"
    (checkpoint / "optimizer").mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(b"w" * 100)
    (checkpoint / "optimizer" / "state.pt").write_bytes(b"o" * 50)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": last}))
    if marked:
        checkpoints.mark_complete(checkpoint, {"since": step, "loss": 0.0})
    return checkpoint


def names(model: Path) -> set[str]:
    return {path.name for path in model.iterdir()}


def test_the_newest_complete_checkpoint_is_resumed_from(tmp_path: Path) -> None:
    save(tmp_path, 9)
    newest = save(tmp_path, 10)
    assert checkpoints.set_aside_unusable(tmp_path) == newest


def test_nothing_is_resumed_where_nothing_was_saved(tmp_path: Path) -> None:
    assert checkpoints.set_aside_unusable(tmp_path) is None


@pytest.mark.parametrize(
    "cut", ["adapter_model.safetensors", "optimizer/state.pt", "complete.json", "trainer_state.json"]
)
def test_a_checkpoint_with_a_file_cut_in_half_is_set_aside(tmp_path: Path, cut: str) -> None:
    save(tmp_path, 10)
    broken = save(tmp_path, 20) / cut
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    assert checkpoints.set_aside_unusable(tmp_path) == tmp_path / "checkpoint-10"
    assert names(tmp_path) == {"checkpoint-10", "broken-checkpoint-20"}


def test_a_checkpoint_with_a_file_missing_is_set_aside(tmp_path: Path) -> None:
    (save(tmp_path, 10) / "optimizer" / "state.pt").unlink()
    assert checkpoints.set_aside_unusable(tmp_path) is None


def test_a_checkpoint_whose_save_was_cut_off_is_set_aside_each_time(tmp_path: Path) -> None:
    for _ in range(2):
        save(tmp_path, 10, marked=False)
        assert checkpoints.set_aside_unusable(tmp_path) is None
        assert names(tmp_path) == {"broken-checkpoint-10"}


def test_a_checkpoint_at_its_last_step_is_not_resumed_from_for_it_would_train_one_more(tmp_path: Path) -> None:
    save(tmp_path, 30)
    save(tmp_path, 40)
    assert checkpoints.set_aside_unusable(tmp_path) == tmp_path / "checkpoint-30"


def test_a_checkpoint_at_which_a_run_ends_early_is_not_resumed_from(tmp_path: Path) -> None:
    before = save(tmp_path, 20)
    checkpoints.mark_complete(save(tmp_path, 30, marked=False), {}, ends=True)
    assert checkpoints.newest_to_resume(tmp_path) == 20
    assert checkpoints.set_aside_unusable(tmp_path) == before


def test_the_loss_since_the_last_log_line_is_saved(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 12, marked=False)
    checkpoints.mark_complete(checkpoint, {"since": 10, "loss": 3.5})
    assert checkpoints.unlogged(checkpoint) == {"since": 10, "loss": 3.5}


def garble(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def test_a_checkpoint_with_garbage_of_the_right_size_is_set_aside_with_a_line(tmp_path: Path) -> None:
    before = save(tmp_path, 10)
    garble(save(tmp_path, 20) / "optimizer" / "state.pt")
    save(tmp_path, 30, marked=False)
    lines: list[str] = []
    assert checkpoints.set_aside_unusable(tmp_path, lines.append) == before
    assert names(tmp_path) == {"checkpoint-10", "broken-checkpoint-20", "broken-checkpoint-30"}
    assert lines == [
        "checkpoint-20 is damaged and not used: the content of optimizer/state.pt is not the one that was written"
    ], "an interrupted one is no damage"


def test_only_the_checkpoint_that_is_taken_is_read(tmp_path: Path) -> None:
    garble(save(tmp_path, 10) / "adapter_model.safetensors")
    newest = save(tmp_path, 20)
    assert checkpoints.set_aside_unusable(tmp_path) == newest
    assert names(tmp_path) == {"checkpoint-10", "checkpoint-20"}
    shutil.rmtree(newest)
    assert checkpoints.set_aside_unusable(tmp_path) is None


def test_a_checkpoint_of_a_version_that_listed_sizes_alone_is_taken(tmp_path: Path) -> None:
    old = save(tmp_path, 10)
    marker = json.loads((old / checkpoints.MARKER).read_text())
    del marker["sha256"]
    (old / checkpoints.MARKER).write_text(json.dumps(marker))
    assert checkpoints.set_aside_unusable(tmp_path) == old
    (old / "optimizer" / "state.pt").write_bytes(b"cut")
    assert checkpoints.set_aside_unusable(tmp_path) is None


def test_a_marker_lists_the_sha256_of_every_file(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 10)
    listed = json.loads((checkpoint / checkpoints.MARKER).read_text())["sha256"]
    assert listed == checkpoints.sha256s(checkpoint)
    assert listed["optimizer/state.pt"] == hashlib.sha256(b"o" * 50).hexdigest()
    assert set(listed) == {"adapter_model.safetensors", "optimizer/state.pt", "trainer_state.json"}
