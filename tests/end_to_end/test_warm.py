"""The next command uses the trainer that the last one preloaded."""

from __future__ import annotations

import pytest

from tests.end_to_end.axosweep import Axosweep, wait_until

pytestmark = pytest.mark.slow

WORDS = ("max_steps=3", "data.limit=200", "tracking=disabled")


def test_a_second_sweep_and_a_plan_use_the_trainer_of_the_first(alone: Axosweep) -> None:
    lasting = alone.waiting()
    first = lasting.run("-m", "seed=1", *WORDS)
    assert first.returncode == 0, first.stderr
    assert "imports take a few seconds" in first.stderr
    pid = alone.preloaded()
    second = lasting.run("-m", "seed=2", *WORDS)
    assert second.returncode == 0, second.stderr
    planned = lasting.run("plan", "-m", "seed=3", "learning_rate=1e-3,2e-3", *WORDS)
    for done in (second, planned):
        assert "imports take a few seconds" not in done.stderr
    assert alone.preloaded() == pid
    (told,) = lasting.json("warm")["trainers"]
    assert told["served"] == 6, "for each sweep its configs and its run, and their dataset; for the plan its configs"
    assert lasting.run("warm", "stop").returncode == 0
    wait_until(lambda: alone.processes() == [], "no process is left", timeout_s=10)
