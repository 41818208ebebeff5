"""What a run of a preloaded trainer has to do itself: each of its forks takes that time again."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from tests.modal_app.steps import ENVIRONMENT, Warm, train_step

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("left_to_a_run.py")
FEW = 10
"""Without Axolotl's own small ones there would be 40, with DeepSpeed, which accelerate asks for, 500."""


def test_a_run_imports_nearly_nothing(trainer: Path, store: Store, warm: Warm) -> None:
    """`warm` has prepared the dataset."""
    done = subprocess.run(
        [trainer, SCRIPT, store.root],
        input=train_step("late-imports", max_steps=2, eval_steps=2, save_steps=2, logging_steps=1).to_json(),
        env={**ENVIRONMENT, "PYTHONPATH": str(SCRIPT.parents[2])},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["code"] == 0
    assert len(told["late"]) < FEW, told["late"]
