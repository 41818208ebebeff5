"""What `pip install axosweep` would install: the wheel finds what it ships, and Hydra finds the plugins."""

import json
import os
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from runner.config.shipped import checkout_root, shipped_root

ROOT = Path(__file__).resolve().parent.parent


def test_a_checkout_ships_its_own_folders() -> None:
    assert shipped_root() == checkout_root() == ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel puts into site-packages."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


@pytest.mark.medium
def test_a_wheel_finds_its_config_groups_sweeps_tiny_model_and_trainer_lock(installed: Path) -> None:
    shipped, lock = map(Path, _python("shipped_files_script.py", installed).splitlines())
    assert shipped.is_relative_to(installed)
    assert lock.is_relative_to(installed)
    assert lock.read_bytes() == (ROOT / "modal_app/trainer/requirements.lock").read_bytes()
    for folder in ("conf", "sweeps", "tiny"):
        assert _names(shipped / folder) == _names(ROOT / folder)


@pytest.mark.medium
def test_an_installed_wheel_starts_a_project_in_any_folder_and_plans_it(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yml").write_text("base_model: a/b\nlearning_rate: 2e-5\ndatasets: [{path: c/d, type: alpaca}]\n")
    for words in (["init"], ["import", "mine.yml", "--name", "imported"]):
        assert _axosweep(words, installed, tmp_path).returncode == 0
    planned = json.loads(_axosweep(["plan", "-m", "+sweeps=first", "--json"], installed, tmp_path).stdout)
    assert len(planned["runs"]) == 4
    shown = _axosweep(["--cfg", "job", "-p", "axolotl", "experiment=imported"], installed, tmp_path).stdout
    assert "base_model: a/b" in shown
    searched = _axosweep(["--info", "searchpath"], installed, tmp_path).stdout
    assert f"{tmp_path}/conf" in searched
    assert str(ROOT) not in searched


def test_hydra_finds_the_plugins_by_scanning_and_by_entry_point() -> None:
    scanned = _python("plugins_found_script.py").split()
    declared = {point.value for point in entry_points(group="hydra.plugins") if point.name.startswith("axosweep")}
    assert len(declared) == 3
    assert declared <= set(scanned)


def _names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _axosweep(words: list[str], installed: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ) | {"PYTHONPATH": str(installed), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", "-m", "runner", *words]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True)


def _python(script: str, first_on_path: Path | None = None) -> str:
    environment = dict(os.environ) | ({"PYTHONPATH": str(first_on_path)} if first_on_path else {})
    command = [sys.executable, "-P", str(Path(__file__).with_name(script))]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
