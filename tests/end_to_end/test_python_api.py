"""The notebook of the Python API, from its first cell to its last, and its results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import axosweep
from runner.api.plans import request_words
from runner.api.records import Records
from runner.api.sweeps import refusals_with_text
from runner.environment import trainer_environment
from runner.errors import SweepError
from tests.end_to_end.axosweep import Axosweep

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "python-api.ipynb"
FORKED = "from tests.forked_trainer import popen; popen.install()"
"""The trainers of the notebook are forks, as those of commands are."""
FRAMES = """
losses, rows = sweep.curves("eval_loss").to_polars(), sweep.records().to_polars()
assert losses.columns == ["run", "name", "step", "value"]
assert len(losses) == len(sweep.curves("eval_loss")) > 8
assert rows["status"].to_list() == ["succeeded"] * 4
"""


def _cells(kind: str) -> list[str]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


@pytest.mark.slow
def test_the_notebook_runs_and_prints_what_its_text_says(axosweep: Axosweep) -> None:
    program = "\n".join([FORKED, *_cells("code"), FRAMES])
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=axosweep.folder, env=axosweep.variables(), capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    planned = [line for line in lines if line.endswith("1 x cpu to train")]
    assert len(planned) == 4
    assert "- sequence_len=-1: expected at least 1." in lines
    assert any(line.startswith("lora=r5000: there is no such lora.") for line in lines)
    trained = [line for line in lines if " succeeded " in line]
    assert sorted(line.split()[0] for line in trained) == sorted(line.split()[0] for line in planned)
    assert any(line.startswith("over 2 seeds: ") for line in lines)
    (sweep,) = axosweep.json("status")["sweeps"]
    assert sweep["counts"] == {"succeeded": 4}, "the command line sees the same sweep"


def test_the_notebook_is_stored_without_output() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("--cfg", "job"), ("lora=r8", "--info")])
def test_a_flag_that_only_prints_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(SweepError, match=r"^--.* prints something and runs nothing"):
        axosweep.plan(*words)


@pytest.mark.parametrize("folder", ["out", "/data/my runs, rank=8", "/data/it's (new)", "/data/[0]"])
def test_the_folder_of_results_may_have_any_name(folder: str) -> None:
    (word,) = (one for one in request_words((), folder) if one.startswith("store="))
    assert OverridesParser.create().parse_override(word).value() == folder


def test_records_become_a_frame_of_pandas_where_that_is_installed() -> None:
    """As in the trainer's environment."""
    program = (
        "from runner.api.records import Records\n"
        "frame = Records([{'run': 'a', 'value': 1.5}, {'run': 'b', 'value': None}]).to_pandas()\n"
        "print(list(frame.columns), frame['value'].isna().tolist())"
    )
    done = subprocess.run(
        [str(trainer_environment.find()), "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split("\n")[0] == "['run', 'value'] [False, True]"


@pytest.mark.parametrize(("text", "expected"), [("", "The launch was refused"), ("lora=r5: no", "lora=r5: no")])
def test_an_error_whose_text_was_printed_has_a_text_for_programs(text: str, expected: str) -> None:
    with pytest.raises(SweepError, match=f"^{expected}"), refusals_with_text():
        raise SweepError(text)


def test_no_records_become_an_empty_frame() -> None:
    assert Records([]).to_polars().is_empty()
    assert Records([{"run": "a"}]).to_polars().rows() == [("a",)]


def test_a_library_that_is_missing_is_named_with_the_way_out() -> None:
    with pytest.raises(SweepError, match="pandas is not installed here: pip install pandas"):
        Records([{"run": "a"}]).to_pandas()
