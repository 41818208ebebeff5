"""Which optimizers step on a CPU: tried with the trainer's own libraries. The table has those that do not."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from modal_app.oneshot.named_imports import PACKAGES
from modal_app.store.layout import Store
from runner.config.cpu_optimizers import NO_CPU_CODE
from runner.config.fields import axolotl_fields
from tests.modal_app.steps import ENVIRONMENT, Warm, losses, outcome, train_step

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("optimizers_on_cpu_script.py")
BARE = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "AXOLOTL_DO_NOT_TRACK": "1"}


def test_all_step_on_a_cpu_but_those_of_the_table_and_those_whose_package_is_missing(
    trainer: Path, tmp_path: Path
) -> None:
    names = set(axolotl_fields().top["optimizer"].choices)
    assert NO_CPU_CODE.keys() <= names
    packages = PACKAGES["optimizer"]
    here = [path.name for path in trainer.parents[1].glob("lib/python3*/site-packages/*")]
    missing = {name for name, module in packages.items() if module not in here}
    asked = sorted(names - missing)
    done = subprocess.run(
        [trainer, SCRIPT, tmp_path, *asked], env={**ENVIRONMENT, **BARE}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    failed = {one["name"]: one["error"] for one in answers if one["error"]}
    assert [one["name"] for one in answers] == asked
    assert failed.keys() == NO_CPU_CODE.keys() - missing, failed


def test_each_trains_with_its_own_steps(warm: Warm, store: Store) -> None:
    """Of three libraries. Muon, which compiles its steps for half a minute, only takes them above."""
    final = {}
    for name in ("adafactor", "adopt_adamw", "adamw_bnb_8bit"):
        step = train_step(f"optimizer-{name}", optimizer=name, max_steps=4, eval_steps=4, save_steps=4)
        assert warm.run(step) == 0, outcome(store, step).message
        final[name] = losses(store, step)[4, "eval_loss"]
        assert final[name] < losses(store, step)[0, "eval_loss"]
    assert len(set(final.values())) == 3
