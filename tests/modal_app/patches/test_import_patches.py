"""What the patches of the imports do by another way has the same result. `test_preload.py` asks the real imports."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from modal_app.patches import importing, packages
from tests.modal_app.steps import PACKAGE

HERE = Path(__file__).parent


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
