"""from=RUN@STEP with real trainings: the same config gives the same losses, another one another schedule, also after
kills."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from modal_app.store.step import StepKind
from tests.end_to_end.axosweep import UNPADDED, Axosweep, kill_all, wait_until
from tests.modal_app.rows import read_rows

pytestmark = pytest.mark.slow

WORDS = ("lora=r8", "data.limit=200", UNPADDED, "tracking=disabled", "save_steps=20", "eval_steps=8")


@pytest.fixture(scope="module")
def command(waiting: Axosweep) -> Axosweep:
    waiting.empty()
    return waiting


@pytest.fixture(scope="module")
def source(command: Axosweep) -> str:
    """The key of a run of 40 steps with checkpoints at 20 and 40."""
    (run,) = command.json(*WORDS, "max_steps=40")["runs"]
    return str(run["key"])


@pytest.fixture(scope="module")
def swept(command: Axosweep, source: str) -> dict[float, dict[str, Any]]:
    """Runs from step 20 on, with the same rate and with another one, by their rates."""
    words = (*WORDS, "max_steps=40", f"from={source}@20", "learning_rate=0.004,0.001")
    return {run["params"]["learning_rate"]: run for run in command.json("-m", *words)["runs"]}


def logged(command: Axosweep, key: str) -> dict[tuple[int, str], float]:
    """All logged losses and rates, by step; if a step was logged twice, the last."""
    text = command.store.folder(StepKind.TRAIN, key).metrics.read_text()
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    names = ("loss", "eval_loss", "learning_rate", "grad_norm")
    return {(line["step"], name): line[name] for line in lines for name in names if name in line}


def test_with_the_same_config_it_logs_the_very_numbers_that_its_origin_did(
    command: Axosweep, source: str, swept: dict[float, dict[str, Any]]
) -> None:
    before, after = logged(command, source), logged(command, swept[0.004]["key"])
    assert min(step for step, _ in after) == 20, "what it begins with is evaluated"
    ours, theirs = (command.store.folder(StepKind.TRAIN, key) for key in (swept[0.004]["key"], source))
    begins, ends, same = (read_rows(path) for path in (ours.losses_before, ours.losses, theirs.losses))
    assert (begins.about.step, begins.about.eval_loss) == (20, after[20, "eval_loss"])
    assert ends.about == same.about
    assert ends.nll.tolist() == same.nll.tolist()
    assert after.pop((20, "eval_loss"))
    assert after == {key: value for key, value in before.items() if key[0] > 20}


def test_with_another_rate_the_schedule_is_the_new_one_from_its_first_step_on(
    command: Axosweep, source: str, swept: dict[float, dict[str, Any]]
) -> None:
    before, after = logged(command, source), logged(command, swept[0.001]["key"])
    rates = {step: value for (step, name), value in after.items() if name == "learning_rate"}
    assert sorted(rates) == list(range(21, 41))
    for step, rate in rates.items():
        assert rate == pytest.approx(before[step, "learning_rate"] / 4), "cosine, of a quarter of the rate"
    assert after[21, "loss"] == before[21, "loss"], "the same weights, the same rows"
    assert after[40, "loss"] != before[40, "loss"]


def test_the_beginning_of_a_run_is_shown_and_recorded(
    command: Axosweep, source: str, swept: dict[float, dict[str, Any]]
) -> None:
    key = swept[0.001]["key"]
    identity = json.loads(command.store.folder(StepKind.TRAIN, key).identity.read_text())
    assert (identity["from"]["run"], identity["from"]["step"]) == (source, 20)
    kept = command.store.inputs / identity["from"]["identity"][:16]
    assert (kept / "optimizer.pt").exists()
    assert len({source, *(run["key"] for run in swept.values())}) == 3
    assert {run["data_key"] for run in swept.values()} == {identity["data_key"]}
    pair = command.json("compare", source, key)
    assert pair["config"]["from"] == [None, f"{source}@20"]


def test_killed_it_goes_on_from_its_own_newest_checkpoint_and_ends_as_if_nothing_had_happened(
    command: Axosweep, source: str
) -> None:
    words = (*WORDS, "max_steps=100", f"from={source}", "save_steps=10", "eval_steps=5")
    (planned,) = command.json("plan", *words)["runs"]
    folder = command.store.folder(StepKind.TRAIN, planned["key"])
    process = command.start(*words)
    wait_until(lambda: (folder.model / "checkpoint-60" / "complete.json").exists(), "its checkpoint of step 60")
    kill_all(command.processes())
    process.communicate()
    (run,) = command.json(*words)["runs"]
    assert run["status"] == "succeeded"
    resumed = [json.loads(attempt.train_state.read_text())["resumed_from"] for attempt in folder.attempts()]
    assert (resumed[0], resumed[-1] >= 60) == (40, True)
    after = logged(command, planned["key"])
    assert [step for step, name in sorted(after) if name == "loss"] == list(range(41, 101)), "no step left out"
    assert [step for step, name in sorted(after) if name == "eval_loss"] == list(range(40, 101, 5)), "its own cadence"
    rates = [after[step, "learning_rate"] for step in range(41, 101)]
    assert rates[0] > after[100, "learning_rate"]
    assert all(one > other for one, other in itertools.pairwise(rates)), "one schedule, kill or no kill"


def test_nothing_left_to_train_is_said_where_only_epochs_tell_it(command: Axosweep, source: str) -> None:
    done = command.run(*WORDS, f"from={source}", "max_steps=null", "num_epochs=0.2", "--json")
    assert done.returncode == 1, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    assert (run["status"], run["reason"]) == ("failed", "config")
    assert "so nothing is left to train: max_steps and num_epochs count from the beginning" in run["message"]
