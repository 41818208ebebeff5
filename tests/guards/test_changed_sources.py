"""Changed sources never use what was created by unchanged ones: apps, preloaded trainers, remembered verdicts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "modal_app").rglob("*.py"))
JUDGES = {
    "modal_app/oneshot/validate.py",
    "modal_app/oneshot/refusals.py",
    "modal_app/oneshot/named_imports.py",
    "modal_app/oneshot/processors.py",
    "modal_app/oneshot/user_modules.py",
    "modal_app/patches/validating.py",
}
SERVING = {"modal_app/cloud/vllm_app.py", "modal_app/serving/vllm.py", "modal_app/serving/spec.py"}


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """File -> the names that change with it."""
    copy = tmp_path_factory.mktemp("program")
    for package in ("modal_app", "runner"):
        shutil.copytree(ROOT / package, copy / package)  # with their bytecode, which records the copied time stamps
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("changed_sources.py"), copy],
        env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("file", SHIPPED)
def test_a_change_in_any_file_changes_the_names_of_the_app_and_the_preloaded_trainer(
    file: str, moved: dict[str, list[str]]
) -> None:
    assert {"app", "preloaded trainer"} <= set(moved[file])


def test_a_verdict_is_requested_again_once_a_source_of_verdicts_has_changed_and_only_then(
    moved: dict[str, list[str]],
) -> None:
    assert {file for file in SHIPPED if "verdict" in moved[file]} == JUDGES


def test_a_served_app_is_another_once_what_serves_it_has_changed(moved: dict[str, list[str]]) -> None:
    assert {file for file in SHIPPED if "served app" in moved[file]} == SERVING


def test_a_file_that_moves_to_another_folder_is_a_change(moved: dict[str, list[str]]) -> None:
    assert {"app", "preloaded trainer"} <= set(moved["renamed"])
