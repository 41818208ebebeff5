"""A share of a budget: the seconds of all containers count, and a step that was stopped for it is not started again."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from modal_app.cloud import attempts, budget
from modal_app.cloud.container import WorkerExit
from modal_app.store.layout import StepFolder, Store
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Share, StepKind
from tests.modal_app.container_records import record_of

SHARE = Share(dollars=1.5, seconds=1000.0)
OOM = Outcome(OutcomeStatus.FAILED, 1, 0.0, 5.0, FailureReason.OOM, "no memory")


@pytest.fixture
def folder(tmp_path: Path) -> StepFolder:
    found = Store(tmp_path).folder(StepKind.TRAIN, "run")
    found.containers.mkdir(parents=True)
    return found


def spend(folder: StepFolder, *seconds: float) -> None:
    for number, one in enumerate(seconds):
        (folder.containers / f"{number}.json").write_text(record_of(one))


def test_the_seconds_of_all_containers_are_taken_off_and_time_is_left_for_a_checkpoint(folder: StepFolder) -> None:
    spend(folder, 300.0, 250.0)
    found = budget.limits(SHARE, folder)
    assert found.stop_at - time.monotonic() == pytest.approx(1000 - 550 - 100, abs=1)
    assert found.kill_at - found.stop_at == pytest.approx(100 + budget.PATIENCE_S)
    long = Share(1.0, 100_000.0)
    assert budget.limits(long, folder).stop_at - time.monotonic() == pytest.approx(100_000 - 550 - 300, abs=1)


def test_a_step_is_not_tried_again_when_too_little_is_left(folder: StepFolder) -> None:
    spend(folder, 890.0)
    folder.attempt(1).path.mkdir()
    assert not budget.is_spent(SHARE, folder)
    spend(folder, 905.0)
    assert budget.is_spent(SHARE, folder)
    folder.attempt(1).path.rmdir()
    assert not budget.is_spent(SHARE, folder), "what was never tried has nothing to report"


def test_a_container_ends_for_the_budget_or_the_time_limit_whichever_has_stopped_its_worker() -> None:
    stopped, killed = WorkerExit(1, 3, out_of_time=True), WorkerExit(1, -9, out_of_time=True)
    assert stopped.why_stopped(for_budget=True) == "its worker was stopped, since its share of the budget was spent"
    assert killed.why_stopped(for_budget=False) == "its worker was killed, since its time limit had come"
    assert WorkerExit(1, -9, out_of_time=False).why_stopped(for_budget=True) == "its worker was killed by signal 9"
    assert not WorkerExit(1, 1, out_of_time=False).why_stopped(for_budget=True)


def test_a_dead_rank_is_the_end_too_when_the_share_is_spent(folder: StepFolder) -> None:
    """Otherwise, Modal would start the call again and again, and each time nothing could be tried."""
    attempt = folder.attempt(1)
    attempt.path.mkdir()
    budget.fail(SHARE, attempt, Outcome(OutcomeStatus.FAILED, 1, 0.0, 5.0, FailureReason.LOST, "rank 1 was killed"))
    assert attempts.is_final(attempt)


def test_a_step_that_had_failed_before_says_that_it_is_not_tried_again_since_its_share_is_spent(
    folder: StepFolder,
) -> None:
    """Otherwise, its old failure would look like a new one."""
    attempt = folder.attempt(1)
    attempt.path.mkdir()
    for _ in range(2):
        before = Outcome.from_json(attempt.result.read_text()) if attempt.result.exists() else OOM
        budget.refuse(SHARE, attempt, before)
        after = Outcome.from_json(attempt.result.read_text())
        assert after.reason is FailureReason.OOM
        assert after.message == "no memory; not tried again, since its share of the budget, $1.50, is spent"


@pytest.mark.parametrize(
    ("status", "becomes", "reason"),
    [
        (OutcomeStatus.STOPPED, OutcomeStatus.FAILED, FailureReason.BUDGET),
        (OutcomeStatus.LOST, OutcomeStatus.FAILED, FailureReason.BUDGET),
        (OutcomeStatus.FAILED, OutcomeStatus.FAILED, FailureReason.OOM),
        (OutcomeStatus.SUCCEEDED, OutcomeStatus.SUCCEEDED, None),
    ],
)
def test_what_was_stopped_has_failed_for_the_budget_and_other_ends_stay(
    folder: StepFolder, status: OutcomeStatus, becomes: OutcomeStatus, reason: FailureReason | None
) -> None:
    attempt = folder.attempt(1)
    attempt.path.mkdir()
    before = Outcome(status, 1, 0.0, 5.0, FailureReason.OOM if status is OutcomeStatus.FAILED else None, "at step 3")
    attempt.result.write_text(before.to_json())
    budget.fail(SHARE, attempt, before)
    after = Outcome.from_json(attempt.result.read_text())
    assert (after.status, after.reason) == (becomes, reason)
    if reason is FailureReason.BUDGET:
        spent = "stopped: its share of the budget, $1.50, is spent (at step 3)"
        assert after.message == f"{spent}; the same command with a higher budget continues it"
