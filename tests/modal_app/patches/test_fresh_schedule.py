"""What a run that goes on from another run's checkpoint restores, and what comes from its own config."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("fresh_schedule_script.py")


@pytest.fixture(scope="module")
def told(trainer: Path) -> dict[str, dict[str, Any]]:
    command = [trainer, SCRIPT, SCRIPT.parents[3]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


def test_the_moments_are_the_checkpoints_and_the_settings_the_configs(told: dict[str, dict[str, Any]]) -> None:
    begun = told["origin"]
    assert (begun["steps"], begun["moment"]) == (6, pytest.approx(1 - 0.9**6))
    assert (begun["decay"], begun["beta"]) == (0.3, 0.8)


def test_the_schedule_is_the_configs_at_the_checkpoints_step(told: dict[str, dict[str, Any]]) -> None:
    begun = told["origin"]
    assert (begun["at"], begun["rate"]) == (6, pytest.approx(0.02 / 7))


def test_how_often_it_logs_and_saves_is_the_configs(told: dict[str, dict[str, Any]]) -> None:
    assert told["origin"]["cadences"] == [[40]]


def test_a_checkpoint_of_its_own_is_loaded_as_it_is(told: dict[str, dict[str, Any]]) -> None:
    own = told["own"]
    assert (own["rate"], own["decay"], own["beta"]) == (pytest.approx(0.5 / 7), 0.1, 0.9)
    assert own["cadences"] == []
