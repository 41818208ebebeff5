"""Which files belong to a user's module, and so to a run's key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.keys import modules
from runner.keys.code import code_input
from runner.keys.content import ContentHashes
from runner.launch.execute import _store_input
from runner.launch.identify import identified
from tests.runner.builders import LOCK, experiment

FILES = {
    "rewards.py": "import json, os.path\nfrom helpers import size\nfrom numpy import mean\n",
    "helpers.py": "def size():\n    import deep.down\n",
    "deep/down.py": "from . import beside\n",
    "deep/beside.py": "",
    "deep/rows.bin": "not code",
    "package/__init__.py": "from .inner import Plugin\n",
    "package/inner/__init__.py": "import later\n",
    "package/words.txt": "hello",
    "package/__pycache__/inner.pyc": "",
    "package/.hidden": "",
    "later.py": "import rewards\n",
    "broken.py": "def (:\n",
    "unrelated.py": "",
    "json.py": "",
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path


def files(*named: str, **rest: Any) -> set[str]:
    found = code_input(experiment({"plugins": list(named)}, **rest))
    return {name for name, _ in found.files} if found else set()


OF_REWARDS = {"rewards.py", "helpers.py", "deep/down.py", "deep/beside.py"}
OF_PACKAGE = {"package/__init__.py", "package/inner/__init__.py", "package/words.txt", "later.py"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rewards.length", OF_REWARDS),
        ("package.inner.Plugin", OF_PACKAGE | OF_REWARDS),
        ("deep.down", {"deep/down.py", "deep/beside.py"}),
        ("broken.Plugin", {"broken.py"}),
        ("json.Plugin", set()),
        ("axolotl.integrations.liger.LigerPlugin", set()),
        ("nowhere.Plugin", set()),
        ("deep.nowhere", set()),
    ],
)
def test_a_module_comes_with_its_package_and_with_what_it_imports(name: str, expected: set[str]) -> None:
    assert files(name) == expected


def test_modules_are_found_here_then_next_to_the_base_then_in_pythonpath(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [folder, folder / "my configs", folder / "path"]
    monkeypatch.setenv("PYTHONPATH", f"{places[2]}")
    for place in reversed(places):
        place.mkdir(exist_ok=True)
        (place / "mine.py").write_text("")
        found = code_input(experiment({"plugins": ["mine.Plugin"]}, overrides=["base='my configs/a.yml'"]))
        assert found is not None
        assert dict(found.files) == {"mine.py": str(place / "mine.py")}


def test_only_the_content_of_what_belongs_to_it_is_in_both_keys(folder: Path) -> None:
    def keys() -> tuple[str, str]:
        run = identified(experiment({"plugins": ["rewards.Plugin"]}), ContentHashes(folder / "hashes.json"), LOCK)
        return run.key, run.data_key

    before = keys()
    (folder / "unrelated.py").write_text("x = 1\n")
    assert keys() == before
    (folder / "deep" / "beside.py").write_text("x = 1\n")
    assert not set(keys()) & set(before)


def test_what_is_stored_is_what_was_hashed(folder: Path) -> None:
    store, hashes = Store(folder / "store"), ContentHashes(folder / "hashes.json")
    found = code_input(experiment({"plugins": ["deep.down"]}))
    assert found is not None
    (folder / "deep" / "down.py").write_text("edited\n")
    with pytest.raises(SweepError, match="deep changed after it was hashed"):
        _store_input(found, store, hashes)


def test_a_package_full_of_data_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "MOST_MB", 0)
    with pytest.raises(SweepError, match="Move what is not code out of it"):
        files("package.Plugin")
