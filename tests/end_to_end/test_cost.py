"""What plan predicts for a run that real Axolotl then trains. benchmarks/cost.py measures how close the predictions
are."""

from __future__ import annotations

import json
import os

import pytest

from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import Axosweep

pytestmark = pytest.mark.slow

WORDS = ("lora=r8", "tracking=disabled", "evals_per_epoch=3", "num_epochs=1")


def test_one_run_tells_the_seconds_of_another_size(axosweep: Axosweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "OMP_NUM_THREADS", "1")
    assert axosweep.run(*WORDS, "max_steps=10").returncode == 0
    (predicted,) = axosweep.json("plan", *WORDS, "data.limit=700")["cost"]["runs"]
    assert (predicted["basis"], predicted["dollars"]) == ("1 record", None)
    assert axosweep.run(*WORDS, "data.limit=700").returncode == 0

    folder = axosweep.store.folder(StepKind.TRAIN, predicted["key"])
    facts = json.loads(folder.done.read_text())["facts"]
    logged = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert predicted["steps"] == facts["step"] == facts["max_steps"]
    assert sum("eval_loss" in line for line in logged) == 4  # 3 an epoch, and the untrained model
    assert len(list(folder.model.glob("checkpoint-*"))) > 0
    # Not seconds: they also depend on other work of this machine.
    assert predicted["cpu_seconds"] == pytest.approx(sum(facts["cpu"].values()), rel=0.4)
