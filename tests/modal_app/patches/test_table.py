"""The table has all changes to other libraries, and nothing is applied except through it."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from modal_app.patches import forking, importing, launching, merging, preparing, running, settings, training, validating
from modal_app.patches.apply import patches_at
from modal_app.patches.patch import Moment, Patch, Purpose
from modal_app.patches.table import PATCHES
from modal_app.store.step import Device
from tests.modal_app.steps import PACKAGE

ROOT = PACKAGE.parent
HERE = Path(__file__).parent
MODULES = (forking, importing, launching, merging, preparing, running, settings, training, validating)
HELPERS = {"lazily_imported"}
NOT_IN_A_LOCK = {"python", "glibc"}
IMPORT = re.compile(r"^\s*(?:from modal_app\.patches(?:\.(\w+))? import|import modal_app\.patches)", re.MULTILINE)
by_name = pytest.mark.parametrize("patch", PATCHES, ids=lambda patch: patch.name)


def test_each_name_is_there_once() -> None:
    assert set(Counter(patch.name for patch in PATCHES).values()) == {1}


@by_name
def test_an_entry_names_a_test_that_exists(patch: Patch) -> None:
    path, _, name = patch.test.partition("::")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@by_name
def test_an_entry_is_for_the_locked_version(patch: Patch) -> None:
    """It fails after an upgrade: check the entry, run its test, then write the new version into the table."""
    if patch.library in NOT_IN_A_LOCK:
        return
    lock = "requirements.lock" if patch.moment is Moment.LAUNCH else "modal_app/trainer/requirements.lock"
    assert f"\n{patch.library}=={patch.version} " in (ROOT / lock).read_text(encoding="utf-8")


@by_name
def test_what_saves_time_says_how_much_and_what_corrects_says_nothing(patch: Patch) -> None:
    assert bool(patch.saves) is (patch.purpose is Purpose.SAVES_TIME)
    assert patch.changes
    assert patch.why


def test_each_function_that_changes_something_is_in_the_table() -> None:
    found = {
        function
        for module in MODULES
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
        and name not in HELPERS
    }
    assert found == {patch.apply for patch in PATCHES}


def test_other_rooms_know_nothing_of_the_patches_but_how_to_apply_them() -> None:
    known = {}
    for package in ("modal_app", "runner", "hydra_plugins"):
        for path in (ROOT / package).rglob("*.py"):
            if names := set(IMPORT.findall(path.read_text(encoding="utf-8"))):
                known[path.relative_to(ROOT).as_posix()] = names
    outside = {path: names for path, names in known.items() if not path.startswith("modal_app/patches/")}
    assert outside.pop("modal_app/process/failures.py") == {"patch"}, "which knows the exception"
    assert set.union(*outside.values()) == {"apply"}


@pytest.mark.parametrize("moment", Moment)
def test_on_cuda_nothing_is_patched_to_save_time(moment: Moment) -> None:
    of_moment = [patch for patch in PATCHES if patch.moment is moment]
    correcting = [patch for patch in of_moment if patch.purpose is Purpose.CORRECTS]
    assert of_moment, "nothing is patched at that moment"
    assert list(patches_at(moment, Device.CPU)) == of_moment
    assert list(patches_at(moment, Device.CUDA)) == correcting
    assert list(patches_at(moment, None)) == correcting


def test_config_files_are_read_by_libyaml(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: 1\n")
    done = subprocess.run(
        [sys.executable, HERE / "libyaml_script.py", tmp_path / "config.yaml"],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "TypeError {'a': 1}\n"
