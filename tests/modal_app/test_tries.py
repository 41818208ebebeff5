from __future__ import annotations

import json
from pathlib import Path

import pytest

from modal_app.cloud import attempts
from modal_app.process.attempt import begin
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Step, StepKind

RUN = Step(StepKind.TRAIN, "run", {}, "data")


@pytest.fixture
def folder(tmp_path: Path) -> StepFolder:
    return Store(tmp_path).folder(RUN.kind, RUN.key)


def say(attempt: Attempt, status: OutcomeStatus, reason: FailureReason | None = None) -> None:
    attempt.result.write_text(Outcome(status, attempt.number, 1.0, 2.0, reason, "it said").to_json())


def test_only_attempts_that_ended_without_a_word_count_and_only_those_since_the_last_word(folder: StepFolder) -> None:
    assert attempts.lost_in_a_row(folder) == 0
    attempts.reserve_attempt(folder, "fc-1")
    say(attempts.reserve_attempt(folder, "fc-1"), OutcomeStatus.FAILED)
    assert attempts.lost_in_a_row(folder) == 0
    attempts.reserve_attempt(folder, "fc-2")
    attempts.reserve_attempt(folder, "fc-2")
    assert attempts.lost_in_a_row(folder) == 2


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "cut off"])
def test_an_attempt_that_modal_asked_to_stop_neither_counts_nor_clears_the_count(
    folder: StepFolder, saved: bool
) -> None:
    attempts.reserve_attempt(folder, "fc-1")
    preempted = attempts.reserve_attempt(folder, "fc-1")
    attempts.note_asked(preempted, "KeyboardInterrupt")
    if saved:
        say(preempted, OutcomeStatus.STOPPED)
    assert attempts.lost_in_a_row(folder) == 1
    assert json.loads(preempted.container.read_text())["call"] == "fc-1", "what it said before is still there"


def test_a_worker_takes_the_attempt_that_was_put_down_for_it_and_no_older_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folder = store.folder(RUN.kind, RUN.key)
    attempts.reserve_attempt(folder, "fc-1")  # its container died before its worker began
    assert attempts.reserve_attempt(folder, "fc-1").number == 2
    step = Step(StepKind.PREPROCESS, "data", {}, "data")
    attempts.reserve_attempt(store.folder(step.kind, step.key), "fc-2")
    assert begin(step, store).number == 1
    assert begin(step, store).number == 2, "with none put down it makes its own"


def test_only_the_call_whose_time_was_up_is_handed_on(folder: StepFolder) -> None:
    assert not attempts.is_handed_on(folder, "fc-1")
    attempt = attempts.reserve_attempt(folder, "fc-1")
    attempts.note_out_of_time(attempt)
    assert attempts.is_handed_on(folder, "fc-1")
    assert not attempts.is_handed_on(folder, "fc-2")
    attempts.reserve_attempt(folder, "fc-2")
    assert not attempts.is_handed_on(folder, "fc-1"), "somebody has gone on already"


def test_who_is_given_up_has_failed_and_says_how_its_last_attempt_died(folder: StepFolder) -> None:
    attempts.reserve_attempt(folder, "fc-1")
    attempt = attempts.reserve_attempt(folder, "fc-1")
    attempts.note_exit(attempt, 17, -9)
    outcome = attempts.give_up(folder)
    assert outcome == Outcome.from_json(attempt.result.read_text())
    assert outcome.status is OutcomeStatus.FAILED
    assert outcome.message.startswith("given up after 2 attempts in a row: its process was killed by signal 9")
    assert attempts.lost_in_a_row(folder) == 0, "asked for again, it has its attempts again"


def test_a_rank_that_was_killed_is_a_death_too_until_it_is_given_up(folder: StepFolder) -> None:
    say(attempts.reserve_attempt(folder, "fc-1"), OutcomeStatus.FAILED, FailureReason.LOST)
    attempts.reserve_attempt(folder, "fc-1")
    say(last := attempts.reserve_attempt(folder, "fc-1"), OutcomeStatus.FAILED, FailureReason.LOST)
    assert attempts.lost_in_a_row(folder) == 3
    assert not attempts.has_failed(folder, "fc-1")
    assert attempts.give_up(folder).message == "given up after 3 attempts in a row: it said"
    assert attempts.lost_in_a_row(folder) == 0
    assert attempts.is_final(last)


def test_a_failure_is_the_word_of_the_call_that_failed_and_of_no_other(folder: StepFolder) -> None:
    say(attempts.reserve_attempt(folder, "fc-1"), OutcomeStatus.FAILED, FailureReason.CONFIG)
    assert attempts.has_failed(folder, "fc-1")
    assert not attempts.has_failed(folder, "fc-2"), "asked for again"
