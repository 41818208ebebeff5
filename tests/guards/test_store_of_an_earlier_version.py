"""A store that version 0.1.0 wrote in November 2026: its finished runs are found, shown, and not trained again.

Only its small files are stored; weights, checkpoints, logs and rows were removed. Like the golden keys, it belongs to
the present lock of the trainer: with another Axolotl these are other runs, and the store is renewed. Its keys are those
of Python 3.12.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from runner.cli import main
from tests.runner.fake_trainer import make_trainer

WRITTEN = Path(__file__).with_name("store_of_0_1_0")
FINISHED = {
    ("-m", "lora=r4,r8", "max_steps=12"): {"a1a7e6fe1a57": "1.6226", "de1a8addf45f": "1.7738"},
    ("gpu.count=2", "max_steps=6"): {"1b644a6c4437": "1.6301"},
}


@pytest.fixture
def earlier(tmp_path: Path) -> Store:
    return Store(shutil.copytree(WRITTEN, tmp_path / "store"))


@pytest.mark.parametrize(("words", "losses"), FINISHED.items())
def test_a_run_that_an_earlier_version_has_finished_is_not_trained_again(
    words: Sequence[str], losses: dict[str, str], earlier: Store, capsys: pytest.CaptureFixture[str],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(make_trainer(tmp_path / "trainer", version="3.12")))
    before = sorted(earlier.runs.rglob("attempt-*"))
    assert main([*words, f"store={earlier.root}"]) == 0
    printed = capsys.readouterr().out
    assert "finished before, skipped; nothing to do" in printed
    for key, loss in losses.items():
        (row,) = [line for line in printed.splitlines() if f"{key} " in line and "succeeded" in line]
        assert loss in row
    assert sorted(earlier.runs.rglob("attempt-*")) == before


def test_with_another_python_it_is_another_run_and_the_plan_says_that_its_key_has_moved(
    earlier: Store, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """numpy is 2.3 on Python 3.12 and 2.5 on 3.13, by the same lock."""
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(make_trainer(tmp_path / "trainer", version="3.13")))
    ((words, losses), *_) = FINISHED.items()
    assert main(["plan", *words, f"store={earlier.root}"]) == 0
    printed = capsys.readouterr()
    assert not any(key in printed.out for key in losses)
    assert "2 of these runs finished under an earlier key" in printed.err
    assert "This trainer has Python 3.13" in printed.err


def test_every_sweep_and_dataset_of_an_earlier_version_is_shown(
    earlier: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["status", "--json", "--store", str(earlier.root)]) == 0
    shown = {one["sweep"]: one["counts"] for one in json.loads(capsys.readouterr().out)["sweeps"]}
    assert shown == {"gpu_count-max_steps-3d5616": {"succeeded": 1}, "lora-4a24ab": {"succeeded": 2}}
    assert main(["data", "--store", str(earlier.root)]) == 0
    assert "ea7d3e922bfd" in capsys.readouterr().out
