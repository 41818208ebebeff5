"""A user's own Axolotl config, through axosweep and back: the file that a plan writes trains to the same losses."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runner.environment import trainer_environment
from tests.end_to_end.axosweep import Axosweep
from tests.good_configs.files import lay_out

pytestmark = pytest.mark.slow

ASKED = ("-m", "base=tiny_on_cpu.yml", "lora_r=8,4", "tracking=disabled")


def test_a_written_config_trains_with_plain_axolotl_to_the_same_losses(axosweep: Axosweep, tmp_path: Path) -> None:
    lay_out(axosweep.folder)
    done = axosweep.run(*ASKED)
    assert done.returncode == 0, done.stderr
    planned = axosweep.json("plan", *ASKED, "--write", "files")
    assert planned["counts"] == {"new": 0, "finished": 2, "duplicates": 0}
    file = Path(planned["written"][0])
    _axolotl("train", str(file), "--launcher", "python", cwd=tmp_path)
    theirs = _logged(axosweep.folder / "files" / "outputs" / file.stem)
    ours = _metrics(axosweep.store.runs / file.stem / "metrics.jsonl")
    assert {(4, "eval_loss"), (8, "eval_loss"), (8, "loss")} <= set(theirs)
    assert {name: ours[name] for name in theirs} == theirs


def _axolotl(*words: str, cwd: Path) -> None:
    program = trainer_environment.find().parent / "axolotl"
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": "",
    }  # fmt: skip
    done = subprocess.run([program, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def _logged(output: Path) -> dict[tuple[int, str], float]:
    """The losses by step and name, as the trainer's own state has them."""
    state = json.loads((output / "checkpoint-8" / "trainer_state.json").read_text())
    return _losses(state["log_history"])


def _metrics(file: Path) -> dict[tuple[int, str], float]:
    return _losses([json.loads(line) for line in file.read_text().splitlines()])


def _losses(logs: list[dict[str, Any]]) -> dict[tuple[int, str], float]:
    return {(log["step"], name): log[name] for log in logs for name in ("loss", "eval_loss") if name in log}
