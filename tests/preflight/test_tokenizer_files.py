"""Which tokenizer on this machine a config reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.preflight.tokenizer_files import VOCABULARY, tokenizer_folder

OLD, NEW = "a" * 40, "b" * 40


@pytest.fixture
def snapshots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two revisions of one model in the hub's cache; `main` is the older one."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--someone--model"
    for age, commit in ((2000, OLD), (1000, NEW)):
        folder = model / "snapshots" / commit
        folder.mkdir(parents=True)
        (folder / VOCABULARY).write_text("{}")
        os.utime(folder / VOCABULARY, (10_000 - age, 10_000 - age))
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(OLD)
    return model / "snapshots"


def test_the_tokenizer_is_that_of_the_models_revision_and_without_one_the_newest(snapshots: Path) -> None:
    config = {"base_model": "someone/model"}
    assert tokenizer_folder(config) == snapshots / NEW
    assert tokenizer_folder({**config, "revision_of_model": OLD}) == snapshots / OLD
    assert tokenizer_folder({**config, "revision_of_model": "main"}) == snapshots / OLD
    assert tokenizer_folder({**config, "revision_of_model": "c" * 40}) is None


def test_a_tokenizer_of_its_own_has_no_part_in_the_models_revision(snapshots: Path) -> None:
    named = {"base_model": "another/model", "revision_of_model": OLD, "tokenizer_config": "someone/model"}
    assert tokenizer_folder(named) == snapshots / NEW
    assert tokenizer_folder({"tokenizer_config": str(snapshots / OLD)}) == snapshots / OLD
    assert tokenizer_folder({}) is None
