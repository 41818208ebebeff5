"""What the recorder makes of a training that is stopped, killed or ended early, with transformers' own Trainer."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.modal_app.steps import ENVIRONMENT, PACKAGE

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("recorder_script.py")


@pytest.fixture(scope="module")
def left(trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("recorded")
    done = subprocess.run(
        [trainer, SCRIPT, folder], capture_output=True, text=True, check=False,
        env={**ENVIRONMENT, "PYTHONPATH": str(PACKAGE.parent), "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_stop_leaves_a_checkpoint_where_only_the_best_is_saved(left: dict[str, Any]) -> None:
    found = left["stopped_where_nothing_is_best"]
    assert found["stopped"]
    assert found["complete"] == [2, 4], "the evaluation at step 4 is worse than that at step 2"


def test_a_stop_leaves_its_checkpoint_next_to_the_best_if_one_is_to_be_stored(left: dict[str, Any]) -> None:
    assert left["stopped_with_one_checkpoint_to_store"]["complete"] == [2, 5]


def test_a_stop_in_the_middle_of_an_epoch_saves_once(left: dict[str, Any]) -> None:
    found = left["stopped_in_an_epoch"]
    assert (found["complete"], found["saves"]) == ([5], 1)


def test_a_checkpoint_is_removed_once_the_next_is_complete(left: dict[str, Any]) -> None:
    found = left["rotated"]
    assert found["before"] == [[], [2], [4]]
    assert found["complete"] == [6]


def test_the_newest_checkpoint_is_not_removed_if_the_clock_was_set_back(left: dict[str, Any]) -> None:
    assert left["rotated_by_a_clock_that_was_set_back"]["complete"] == [2, 6], "2 is the best"


def test_no_run_resumes_from_a_checkpoint_without_the_state_of_the_optimizer(left: dict[str, Any]) -> None:
    """Axolotl only warns where accelerate cannot save it, and the Trainer would begin with a new one."""
    assert left["without_optimizer"]["complete"] == []


def test_early_stopping_ends_a_run_where_it_would_have_ended_without_a_kill(left: dict[str, Any]) -> None:
    undisturbed, *resumed = left["killed_after_a_bad_evaluation"]
    assert (undisturbed["global_step"], undisturbed["early_stopped"]) == (6, True)
    for one in resumed:
        assert (one["taken"], one["global_step"], one["early_stopped"]) == (4, 6, True)


def test_a_run_may_have_a_patience_that_the_run_of_its_start_checkpoint_did_not_have(left: dict[str, Any]) -> None:
    found = left["from_a_run_without_patience"]
    assert (found["taken"], found["complete"]) == (2, [2, 4, 6])


def test_a_run_that_ends_early_at_a_rung_has_ended(left: dict[str, Any]) -> None:
    found = left["ended_at_a_rung"]
    assert (found["global_step"], found["early_stopped"], found["at_rung"]) == (6, True, None)


def test_the_steps_after_the_last_log_line_are_logged(left: dict[str, Any]) -> None:
    assert left["logged_seldom"]["logged"] == [4, 8, 10]


def test_a_run_that_a_callback_ends_is_evaluated_and_logged_there(left: dict[str, Any]) -> None:
    found = left["halted"]
    assert (found["evaluated"], found["logged"]) == ([2, 4, 5], [4, 5])


def test_packed_rows_are_each_trained_on_once_though_two_ranks_resume_in_the_middle_of_an_epoch(
    left: dict[str, Any],
) -> None:
    undisturbed, resumed = left["packed_rows_of_two_ranks"]
    assert len(undisturbed) == 10
    assert resumed == undisturbed[6:]


def test_the_number_of_steps_of_packed_rows_does_not_depend_on_chance(left: dict[str, Any]) -> None:
    """Axolotl packs them in random orders to count the steps."""
    one, other = left["drawn_for_the_number_of_steps"]
    assert one == other


@pytest.mark.parametrize(("resumed", "step"), [(1, 13), (2, 10)])
def test_rows_that_are_grouped_by_their_length_are_each_trained_on_once_though_a_run_resumes(
    left: dict[str, Any], resumed: int, step: int
) -> None:
    """In the middle of its second epoch, or at its beginning."""
    found = left["grouped_rows"]
    assert len(found[0]) == 20
    assert found[resumed] == found[0][step:]
