from __future__ import annotations

import json
from pathlib import Path

import pytest

from modal_app.cloud import attempts
from modal_app.process.attempt import begin
from modal_app.store.layout import Attempt, StepFolder, Store
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, Step, StepKind

RUN = Step(StepKind.TRAIN, "run", {}, "data")


def reserve(folder: StepFolder, call: str) -> Attempt:
    """Begin the next attempt as a container of that call would."""
    return attempts.reserve_attempt(folder, len(folder.attempts()) + 1, call)


@pytest.fixture
def folder(tmp_path: Path) -> StepFolder:
    return Store(tmp_path).folder(RUN.kind, RUN.key)


def say(attempt: Attempt, status: OutcomeStatus, reason: FailureReason | None = None) -> None:
    attempt.result.write_text(Outcome(status, attempt.number, 1.0, 2.0, reason, "it said").to_json())


def test_only_attempts_that_ended_without_a_word_count_and_only_those_since_the_last_word(folder: StepFolder) -> None:
    assert attempts.lost_in_a_row(folder) == 0
    reserve(folder, "fc-1")
    say(reserve(folder, "fc-1"), OutcomeStatus.FAILED)
    assert attempts.lost_in_a_row(folder) == 0
    reserve(folder, "fc-2")
    reserve(folder, "fc-2")
    assert attempts.lost_in_a_row(folder) == 2


@pytest.mark.parametrize("saved", [True, False], ids=["saved", "cut off"])
def test_an_attempt_that_modal_asked_to_stop_neither_counts_nor_clears_the_count(
    folder: StepFolder, saved: bool
) -> None:
    reserve(folder, "fc-1")
    preempted = reserve(folder, "fc-1")
    attempts.note_stop_request(preempted, "KeyboardInterrupt")
    if saved:
        say(preempted, OutcomeStatus.STOPPED)
    assert attempts.lost_in_a_row(folder) == 1
    assert json.loads(preempted.container.read_text())["call"] == "fc-1", "what it said before is still there"


def test_a_worker_works_on_the_attempt_that_it_was_given_and_writes_into_its_draft(tmp_path: Path) -> None:
    folder = Store(tmp_path).folder(RUN.kind, RUN.key)
    for _ in range(2):
        reserve(folder, "fc-1")
    attempt = begin(RUN, Store(tmp_path), folder.draft_of(1))
    assert attempt.number == 1
    assert begin(RUN, Store(tmp_path), folder).number == 3, "without one it makes its own"
    assert (attempt.draft / "config.yml").exists()
    assert (folder.path / "config.yml").exists()


def test_only_the_call_whose_time_was_up_is_handed_on(folder: StepFolder) -> None:
    assert not attempts.is_handed_on(folder, "fc-1")
    attempt = reserve(folder, "fc-1")
    attempts.note_out_of_time(attempt)
    assert attempts.is_handed_on(folder, "fc-1")
    assert not attempts.is_handed_on(folder, "fc-2")
    reserve(folder, "fc-2")
    assert not attempts.is_handed_on(folder, "fc-1"), "another call has gone on already"


def test_who_is_given_up_has_failed_and_says_how_its_last_attempt_died(folder: StepFolder) -> None:
    reserve(folder, "fc-1")
    attempt = reserve(folder, "fc-1")
    attempts.note_exit(attempt, 17, -9)
    outcome = attempts.give_up(folder, folder.attempts()[-1])
    assert outcome == Outcome.from_json(attempt.result.read_text())
    assert outcome.status is OutcomeStatus.FAILED
    assert outcome.message.startswith("given up after 2 attempts in a row: its process was killed by signal 9")
    assert attempts.lost_in_a_row(folder) == 0, "a new request has all attempts again"


def test_a_rank_that_was_killed_is_a_death_too_until_it_is_given_up(folder: StepFolder) -> None:
    say(reserve(folder, "fc-1"), OutcomeStatus.FAILED, FailureReason.LOST)
    reserve(folder, "fc-1")
    say(last := reserve(folder, "fc-1"), OutcomeStatus.FAILED, FailureReason.LOST)
    assert attempts.lost_in_a_row(folder) == 3
    assert not attempts.failed(folder, "fc-1")
    assert attempts.give_up(folder, folder.attempts()[-1]).message == "given up after 3 attempts in a row: it said"
    assert attempts.lost_in_a_row(folder) == 0
    assert attempts.is_final(last)


def test_a_failure_is_the_word_of_the_call_that_failed_and_of_no_other(folder: StepFolder) -> None:
    say(reserve(folder, "fc-1"), OutcomeStatus.FAILED, FailureReason.CONFIG)
    assert attempts.failed(folder, "fc-1")
    assert not attempts.failed(folder, "fc-2"), "requested again"
