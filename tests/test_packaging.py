"""What `pip install axosweep` would give: the wheel finds what it ships, and Hydra finds the plugins."""

import os
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

from runner.shipped import checkout_root, shipped_root

ROOT = Path(__file__).resolve().parent.parent


def test_a_checkout_ships_its_own_folders() -> None:
    assert shipped_root() == checkout_root() == ROOT


def test_a_wheel_finds_its_config_groups_sweeps_tiny_model_and_trainer_lock(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(installed)
    found = _python(
        "from runner.shipped import shipped_root; from runner.trainer_environment import LOCK_FILE;"
        "print(shipped_root()); print(LOCK_FILE)",
        installed,
    ).splitlines()
    shipped, lock = map(Path, found)
    assert shipped.is_relative_to(installed)
    assert lock.is_relative_to(installed)
    assert lock.read_bytes() == (ROOT / "modal_app/trainer/requirements.lock").read_bytes()
    for folder in ("conf", "sweeps", "tiny"):
        assert _names(shipped / folder) == _names(ROOT / folder)


def test_hydra_finds_the_plugins_by_scanning_and_by_entry_point() -> None:
    scanned = _python(
        "from hydra.core.plugins import Plugins; from hydra.plugins.plugin import Plugin;"
        "print(*(f'{c.__module__}:{c.__name__}' for c in Plugins.instance().discover(Plugin)))"
    ).split()
    declared = {point.value for point in entry_points(group="hydra.plugins") if point.name.startswith("axosweep")}
    assert len(declared) == 3
    assert declared <= set(scanned)


def _names(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _python(code: str, first_on_path: Path | None = None) -> str:
    environment = dict(os.environ) | ({"PYTHONPATH": str(first_on_path)} if first_on_path else {})
    command = [sys.executable, "-P", "-c", code]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
