"""What trainers leave out: what is known afterwards is the same, and who wants it for himself still gets it."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from modal_app.patches import lean_imports
from tests.modal_app.steps import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
FAULTS = """
import resource, sys
from modal_app.patches import lean_imports
if sys.argv[1] == "lean":
    lean_imports._keep_freed_memory()
for _ in range(10):
    [bytearray(1 << 20) for _ in range(40)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
LEAN = """
import json, os, sys
answer = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import importlib.metadata
theirs = importlib.metadata.packages_distributions()
import gc
from modal_app.patches import lean_imports, lean_run
with lean_imports.lean_imports():
    collecting = gc.isenabled()
    from transformers import PretrainedConfig, utils
    from transformers.generation import candidate_generator
    from transformers.loss import loss_for_object_detection, loss_rt_detr
    from transformers.utils.import_utils import PACKAGE_DISTRIBUTION_MAPPING
    import axolotl.utils.callbacks
early = [name for name in ("sklearn", "scipy.optimize", "scipy.stats", "evaluate.loading") if name in sys.modules]
told = {
    "theirs": theirs,
    "ours": PACKAGE_DISTRIBUTION_MAPPING,
    "collecting": [collecting, gc.isenabled()],
    "frozen": gc.get_freeze_count() > 100_000,
    "early": early,
    "assistant": candidate_generator.is_sklearn_available(),
    "available": [utils.is_sklearn_available(), utils.is_scipy_available()],
}
from wandb.util import working_set
theirs = {(one.key, one.version) for one in working_set()}
lean_run.list_packages_quickly()
from wandb.util import working_set
told["listed"] = {(one.key, one.version) for one in working_set()} == theirs and len(theirs) > 100
told["quickly"] = lean_imports.installed.cache_info().currsize == 1
import evaluate, sklearn.metrics
losses = (loss_for_object_detection, loss_rt_detr)
told["assigned"] = [[list(map(int, one)) for one in loss.linear_sum_assignment([[1, 2], [2, 0]])] for loss in losses]
told["evaluate"] = axolotl.utils.callbacks.evaluate.load is evaluate.load and "evaluate.loading" in sys.modules
answer.write(json.dumps(told))
answer.flush()
"""

SERVICE = """
import subprocess, sys, time
from pathlib import Path
import wandb
from modal_app.patches import lean_run
from wandb.sdk.lib.service import service_port_file
file = Path(sys.argv[1])
for look_often in (lambda: None, lean_run.look_often_for_the_service):
    look_often()
    sleep, begun, looks = service_port_file._SLEEP, time.monotonic(), 0
    def sleep_and_answer_late(seconds):
        global looks
        looks += 1
        sleep(seconds)
        if time.monotonic() > begun + 0.5:
            file.write_text("sock=7\\nEOF")
    service_port_file._SLEEP = sleep_and_answer_late
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    token = service_port_file.poll_for_token(file, process, timeout=30)
    process.kill()
    file.unlink()
    print(token._port, looks)
"""


def in_order(found: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {package: sorted(names) for package, names in found.items()}


def test_what_is_read_of_the_packages_is_what_the_standard_library_finds() -> None:
    assert in_order(lean_imports.packages_distributions()) == in_order(importlib.metadata.packages_distributions())


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
    found = in_order(lean_imports.packages_distributions())
    assert {name: found[name] for name in ("one", "two", "three", "four", "seven", "eight")} == {
        "one": ["Declared"], "two": ["Declared"], "three": ["inferred"], "four": ["inferred"], "seven": ["laid"],
        "eight": ["laid"],
    }  # fmt: skip
    assert not {"bin", "five", "..", "six", "six.pth", "nine"} & set(found)


def test_memory_that_was_freed_is_taken_again() -> None:
    def faults(how: str, **more: str) -> int:
        environment = {name: value for name, value in os.environ.items() if name not in lean_imports.MALLOC_SETTINGS}
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how], env=environment | more, cwd=ROOT, stdout=subprocess.PIPE, check=True
        )
        return int(done.stdout)

    usual = faults("usual")
    assert usual > 40_000, "pages of 4 KiB, and glibc's malloc gives 40 MiB back each time"
    assert faults("lean") < usual / 4
    assert faults("lean", MALLOC_MMAP_THRESHOLD_="131072") > 40_000, "what the user has set stays"


def test_the_service_of_a_tracked_run_is_looked_for_often(tmp_path: Path) -> None:
    words = [sys.executable, "-c", SERVICE, tmp_path / "port"]
    done = subprocess.run(words, env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    theirs, ours = ([int(word) for word in line.split()] for line in done.stdout.splitlines())
    assert theirs[0] == ours[0] == 7
    assert theirs[1] < 10 < ours[1]


@pytest.mark.slow
def test_the_trainer_knows_its_packages_and_leaves_some_to_who_asks_for_them(trainer: Path) -> None:
    done = subprocess.run([trainer, "-c", LEAN], env=ENVIRONMENT, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    told = json.loads(done.stdout)
    assert in_order(told["ours"]) == in_order(told["theirs"])
    assert (told["early"], told["assistant"], told["available"]) == ([], False, [True, True])
    assert told["assigned"] == [[[0, 1], [0, 1]]] * 2
    assert told["evaluate"]
    assert told["listed"]
    assert told["quickly"], "what is equal is not what W&B had before"
    assert (told["collecting"], told["frozen"]) == ([False, True], True)
