"""Which files are flushed to the disk before they count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from modal_app.store import checkpoints
from modal_app.store.durable import outlasts
from modal_app.store.step import write_atomically


def test_a_containers_own_disk_is_lost_with_it_so_nothing_is_flushed_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert not outlasts(Path("../scratch/train-run-1/draft/model/checkpoint-10"))  # as Axolotl gets it
    assert outlasts(Path("/data/scratch/x"))


def test_a_checkpoint_on_this_machine_is_flushed_before_its_marker_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: flushed.append(os.readlink(f"/proc/self/fd/{descriptor}")))
    (tmp_path / "weights").write_bytes(b"weights")
    checkpoints.mark_complete(tmp_path, {})
    assert flushed[:2] == [str(tmp_path / "weights"), str(tmp_path)]
    assert "complete.json" in flushed[2]
    write_atomically(tmp_path / "train.json", "{}", durable=False)
    assert len(flushed) == 3
