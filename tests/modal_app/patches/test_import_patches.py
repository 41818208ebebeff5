"""What the patches of the imports leave out: the result of the imports is the same, and code that needs it still gets
it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from modal_app.patches import importing, packages
from tests.modal_app.steps import ENVIRONMENT, PACKAGE

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def imported(trainer: Path) -> dict[str, Any]:
    done = subprocess.run(
        [trainer, HERE / "importing_script.py"],
        env={**ENVIRONMENT, "PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "skipping the patch" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def in_order(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {package: sorted(names) for package, names in found.items()}


def test_what_is_read_of_the_packages_is_what_the_standard_library_finds() -> None:
    assert in_order(packages.packages_distributions()) == in_order(importlib.metadata.packages_distributions())


def test_packages_are_found_however_they_were_put_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, files in {
        "declared-1.dist-info": {
            "METADATA": "Name: Declared\n\nName: no\n",
            "top_level.txt": "one\ntwo\n",
            "RECORD": "",
        },
        "inferred-1.dist-info": {
            "METADATA": "Metadata-Version: 2.1\nName: inferred\n",
            "RECORD": "three/__init__.py,,\nfour.py,,\n../../bin/five,,\ninferred-1.dist-info/METADATA,,\nsix.pth,,\n",
        },
        "laid.egg-info": {"PKG-INFO": "Name: laid\n", "SOURCES.txt": "seven/__init__.py\neight.py\n"},
        "nameless-1.dist-info": {"METADATA": "", "RECORD": "nine.py,,\n"},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    for path in ("three/__init__.py", "four.py", "six.pth", "seven/__init__.py", "eight.py"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    found = in_order(packages.packages_distributions())
    assert {name: found[name] for name in ("one", "two", "three", "four", "seven", "eight")} == {
        "one": ["Declared"], "two": ["Declared"], "three": ["inferred"], "four": ["inferred"], "seven": ["laid"],
        "eight": ["laid"],
    }  # fmt: skip
    assert not {"bin", "five", "..", "six", "six.pth", "nine"} & set(found)


def test_memory_that_was_freed_is_taken_again() -> None:
    def faults(*words: str, **more: str) -> int:
        bare = {name: value for name, value in os.environ.items() if name not in importing.MALLOC_SETTINGS}
        environment = {**bare, "PYTHONPATH": str(PACKAGE.parent), **more}
        command: list[str | Path] = [sys.executable, HERE / "faults_script.py", *words]
        return int(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)

    usual = faults()
    assert usual > 40_000, "pages of 4 KiB, and glibc's malloc gives 40 MiB back each time"
    assert faults("patched") < usual / 4
    assert faults("patched", MALLOC_MMAP_THRESHOLD_="131072") > 40_000, "what the user has set stays"


@pytest.mark.slow
def test_no_garbage_is_collected_while_importing(imported: dict[str, Any]) -> None:
    assert imported["collects"] == [False, True]
    assert imported["frozen"] > 100_000


@pytest.mark.slow
def test_transformers_knows_the_packages_that_the_standard_library_finds(imported: dict[str, Any]) -> None:
    assert in_order(imported["known packages"]) == in_order(imported["packages"])


@pytest.mark.slow
def test_the_packages_metadata_is_read_once_for_all_that_ask(imported: dict[str, Any]) -> None:
    read, taken = imported["read"]
    assert read == 1
    assert taken >= 1, "nothing else asks: the patch saves nothing any more"


@pytest.mark.slow
def test_scikit_learn_is_left_out_and_is_there_for_others(imported: dict[str, Any]) -> None:
    assert "sklearn" not in imported["imported"]
    assert imported["asks an assistant"] is False
    assert imported["available"] == [True, True]


@pytest.mark.slow
def test_scipy_is_imported_when_a_loss_calls_it(imported: dict[str, Any]) -> None:
    assert "scipy.optimize" not in imported["imported"]
    assert imported["assigned by losses"] == [imported["assigned"]] * 2


@pytest.mark.slow
def test_evaluate_is_imported_when_it_is_used(imported: dict[str, Any]) -> None:
    assert imported["imported"] == []
    assert imported["evaluate"]
    assert imported["evaluate was imported"]
