from __future__ import annotations

import json
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


def test_the_newest_whole_checkpoint_is_resumed_from(tmp_path: Path) -> None:
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


def test_the_loss_since_the_last_log_line_is_kept(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 12, marked=False)
    checkpoints.mark_complete(checkpoint, {"since": 10, "loss": 3.5})
    assert checkpoints.unlogged(checkpoint) == {"since": 10, "loss": 3.5}
