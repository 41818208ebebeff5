"""`axosweep resume`: which runs it accepts, and its messages about others. Training them is in tests/end_to_end."""

from __future__ import annotations

from pathlib import Path

import pytest

from modal_app.halving.snapshot import Why
from modal_app.store.claim import claim
from modal_app.store.layout import Store
from modal_app.store.step import FailureReason, OutcomeStatus, StepKind
from runner.api.resume import ask_for, stopped_runs
from runner.cli import main
from runner.errors import SweepError
from runner.store.searches import searches_of
from tests.runner.builders import begin_attempt, finish, open_sweep, run
from tests.runner.halved_store import HalvedSweep, entries_of, halved_sweep


@pytest.fixture
def sweep(store: Store) -> HalvedSweep:
    return halved_sweep(store)


def test_runs_at_a_rung_are_resumed_in_the_sweep_that_has_stopped_them(store: Store, sweep: HalvedSweep) -> None:
    later = open_sweep(store, [sweep.stopped], "later")
    (found,) = stopped_runs([store], [sweep.stopped.key, sweep.promoted.key[:8], sweep.stopped.key])
    assert found.sweep == sweep.id != later.sweep
    assert [one.key for one in found.runs] == [sweep.stopped.key, sweep.promoted.key]


def test_a_resumed_run_goes_on_from_its_last_rung_alone(store: Store, sweep: HalvedSweep) -> None:
    (found,) = stopped_runs([store], [sweep.stopped.key, sweep.promoted.key])
    ask_for(found)
    (search,) = searches_of(store, sweep.id)
    assert [one.why for one in search.reached[sweep.stopped.key]] == [Why.ASKED]
    assert [one.why for one in search.reached[sweep.promoted.key]] == [Why.TOP, Why.ASKED]
    assert entries_of(store, sweep.id).get(f"go/1/{sweep.diverged.key}") is None


@pytest.mark.parametrize("status", [OutcomeStatus.STOPPED, OutcomeStatus.LOST, OutcomeStatus.FAILED])
def test_a_run_that_ended_before_its_end_is_resumed_too(store: Store, status: OutcomeStatus) -> None:
    one = run({"learning_rate": 1.0})
    sweep = open_sweep(store, [one]).sweep
    finish(store, StepKind.TRAIN, one.key, status, reason=FailureReason.ERROR)
    assert stopped_runs([store], [one.key])[0].sweep == sweep


def test_a_run_without_an_end_to_train_to_is_refused(store: Store, sweep: HalvedSweep) -> None:
    running, pending = run({"learning_rate": 1.0}), run({"learning_rate": 2.0})
    other = open_sweep(store, [running, pending], "other").sweep

    def refusal(name: str) -> str:
        with pytest.raises(SweepError) as error:
            stopped_runs([store], [name])
        return str(error.value)

    assert refusal(sweep.winner.key).endswith("since it has finished.")
    assert refusal(pending.key).endswith(f"since it has not begun (pending). Launching {other} again starts it.")
    with claim(store.folder(StepKind.TRAIN, running.key), other):
        begin_attempt(store, StepKind.TRAIN, running.key)
        assert f"it is running; `axosweep logs {running.key} -f`" in refusal(running.key)
    assert f"is a sweep, and resume takes runs. It has stopped: {sweep.stopped.key}" in refusal(sweep.id)
    assert "launch it again without search.rungs. It was launched with: axosweep" in refusal(sweep.id)
    assert "launch it again. It was launched with: axosweep" in refusal(other)
    assert "There is no run or sweep ffff" in refusal("ffff")


@pytest.mark.parametrize(
    ("word", "message"),
    [("seed=3", "takes no override"), ("budget=0", "more than 0"), ("budget=3", "runs on this machine")],
)
def test_words_that_are_not_runs_are_refused(
    store: Store, sweep: HalvedSweep, capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    assert main(["resume", sweep.stopped.key, word, "--store", str(store.root)]) == 2
    assert message in capsys.readouterr().err


def test_a_run_that_would_be_another_one_now_is_refused_and_not_requested(
    store: Store, sweep: HalvedSweep, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["resume", sweep.stopped.key, "--store", str(store.root)]) == 2
    assert f"The run {sweep.stopped.key} would be another one now" in capsys.readouterr().err
    assert entries_of(store, sweep.id).get(f"go/1/{sweep.stopped.key}") is None


def test_a_run_of_a_sweep_file_that_has_been_renamed_is_refused_with_the_name_of_its_sweep(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    one = run({"learning_rate": 1.0}, overrides=("sweeps=rates", "learning_rate=1"))
    sweep = open_sweep(store, [one], "rates").sweep
    finish(store, StepKind.TRAIN, one.key, OutcomeStatus.STOPPED)
    assert main(["resume", one.key, "--store", str(store.root)]) == 2
    refusal = capsys.readouterr().err
    assert (
        f"The runs of {sweep} cannot be composed again in this folder: sweeps=rates: there is no such sweep." in refusal
    )
