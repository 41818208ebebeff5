"""`axosweep init` writes a project that works unchanged, and overwrites nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.command.init import START, init
from runner.errors import SweepError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AXOSWEEP_STORE", str(tmp_path / "store"))
    return tmp_path


def test_what_it_writes_composes_to_what_it_says(ask: Callable[..., Any], here: Path) -> None:
    said = init(None)
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()) == sorted(START)
    assert said[-1] == "Next: axosweep plan -m +sweeps=first"
    (mine,) = ask("experiment=mine").experiments
    assert (mine.axolotl["max_steps"], mine.axolotl["lora_r"], mine.gpu.type) == (60, 8, "cpu")
    first = ask("-m", "+sweeps=first").experiments
    assert [(one.axolotl["lora_r"], one.axolotl["learning_rate"]) for one in first] == [
        (4, 1e-3), (4, 4e-3), (16, 1e-3), (16, 4e-3)
    ]  # fmt: skip
    assert {one.axolotl["max_steps"] for one in first} == {60}


def test_every_file_says_how_it_is_used(here: Path) -> None:
    init(None)
    assert "axosweep experiment=mine" in (here / START[0]).read_text()
    assert "axosweep -m +sweeps=first" in (here / START[1]).read_text()


def test_what_exists_is_not_overwritten(here: Path) -> None:
    (here / "README.md").write_text("mine")
    assert "skipped  README.md: exists already" in init(None)
    (here / START[0]).write_text("changed")
    said = init(None)
    assert sum(line.startswith("skipped") for line in said) == 3
    assert (here / "README.md").read_text() == "mine"
    assert (here / START[0]).read_text() == "changed"


def test_a_folder_is_created_and_named_in_the_next_steps(here: Path) -> None:
    assert init("new/project")[-1] == "Next: cd new/project && axosweep plan -m +sweeps=first"
    assert (here / "new" / "project" / "sweeps" / "first.yaml").exists()


def test_another_applications_conf_is_left_alone(here: Path) -> None:
    (here / "conf").mkdir()
    (here / "conf" / "config.yaml").write_text("defaults: [_self_]\n")
    with pytest.raises(SweepError, match="another application's"):
        init(None)
    assert not (here / "sweeps").exists()


def test_a_folder_that_cannot_be_written_is_said(here: Path) -> None:
    (here / "file").write_text("")
    with pytest.raises(SweepError, match="cannot be written"):
        init("file")
