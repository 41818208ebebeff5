from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from modal_app.store import stop_notes
from modal_app.store.claim import claim, this_process
from modal_app.store.layout import Attempt, Store
from modal_app.store.state import Phase, observe, record_exit
from modal_app.store.step import FailureReason, Outcome, OutcomeStatus, StepKind

TRAIN = StepKind.TRAIN


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def begin(store: Store, number: int = 1) -> Attempt:
    attempt = store.folder(TRAIN, "run").attempt(number)
    attempt.path.mkdir(parents=True)
    attempt.started.write_text(json.dumps(asdict(this_process(""))))
    return attempt


def ended(status: OutcomeStatus, number: int = 1, reason: FailureReason | None = None) -> Outcome:
    return Outcome(status, number, 1.0, 2.0, reason, "said so")


def test_a_step_that_has_not_begun_is_absent(store: Store) -> None:
    assert observe(store, TRAIN, "run").phase is Phase.ABSENT


@pytest.mark.parametrize("status", [OutcomeStatus.FAILED, OutcomeStatus.STOPPED])
def test_an_attempt_ended_as_its_result_says(store: Store, status: OutcomeStatus) -> None:
    begin(store).result.write_text(ended(status).to_json())
    state = observe(store, TRAIN, "run")
    assert (state.phase, state.attempt, state.outcome) == (Phase(status.value), 1, ended(status))


def test_only_the_done_file_means_success(store: Store) -> None:
    folder = store.folder(TRAIN, "run")
    attempt = begin(store)
    folder.done.write_text(ended(OutcomeStatus.SUCCEEDED).to_json())
    state = observe(store, TRAIN, "run")
    assert state.phase is Phase.SUCCEEDED, "killed between the run's result and the attempt's"
    assert not attempt.result.exists()


def test_a_manifest_is_success_and_its_facts(store: Store) -> None:
    store.prepared_dataset("data").mkdir(parents=True)
    manifest = {"attempt": 3, "started_at": 1.0, "finished_at": 2.0, "rows": 9}
    store.manifest("data").write_text(json.dumps(manifest))
    state = observe(store, StepKind.PREPROCESS, "data")
    assert (state.phase, state.attempt) == (Phase.SUCCEEDED, 3)
    assert state.outcome is not None
    assert state.outcome.facts["rows"] == 9


def test_a_success_whose_done_file_was_removed_is_lost(store: Store) -> None:
    begin(store).result.write_text(ended(OutcomeStatus.SUCCEEDED).to_json())
    state = observe(store, TRAIN, "run")
    assert state.phase is Phase.LOST
    assert state.outcome is not None
    assert state.outcome.message == "it had succeeded, but result.json is gone"


def test_a_success_that_its_container_could_not_publish_is_stopped_and_says_what_publishes_it(store: Store) -> None:
    attempt = begin(store)
    attempt.result.write_text(ended(OutcomeStatus.SUCCEEDED).to_json())
    attempt.draft.mkdir()
    store.folder(TRAIN, "run").draft_of(attempt.number).done.write_text(attempt.result.read_text())
    state = observe(store, TRAIN, "run")
    assert state.phase is Phase.STOPPED
    assert state.outcome is not None
    assert state.outcome.reason is FailureReason.UNPUBLISHED
    assert "the same command publishes them" in state.outcome.message


def test_neither_lock_nor_result_is_lost(store: Store) -> None:
    begin(store)
    state = observe(store, TRAIN, "run")
    assert state.phase is Phase.LOST
    assert state.outcome is not None
    assert (state.outcome.status, state.outcome.reason) == (OutcomeStatus.LOST, FailureReason.LOST)


def test_a_lost_step_tells_the_signal_that_its_parent_saw(store: Store) -> None:
    begin(store)
    record_exit(store, TRAIN, "run", os.getpid(), -9)
    outcome = observe(store, TRAIN, "run").outcome
    assert outcome is not None
    assert outcome.message.startswith("its process was killed by signal 9")


def test_a_step_that_we_have_killed_says_who_it_was_and_nothing_about_memory(store: Store) -> None:
    attempt = begin(store)
    stop_notes.note_stop_request(attempt, "Ctrl-C")
    assert not stop_notes.killed_by(attempt)
    stop_notes.note_kill(attempt, "a second Ctrl-C")
    stop_notes.note_kill(attempt, "somebody who came later")
    record_exit(store, TRAIN, "run", os.getpid(), -9)
    outcome = observe(store, TRAIN, "run").outcome
    assert outcome is not None
    assert (outcome.status, outcome.reason) == (OutcomeStatus.STOPPED, FailureReason.KILLED)
    assert outcome.message == "killed by a second Ctrl-C"


def test_a_step_that_was_only_asked_to_stop_and_died_is_lost(store: Store) -> None:
    stop_notes.note_stop_request(begin(store), "Ctrl-C")
    assert observe(store, TRAIN, "run").phase is Phase.LOST


def test_an_exit_is_noted_only_for_the_attempt_of_that_process(store: Store) -> None:
    attempt = begin(store)
    record_exit(store, TRAIN, "run", os.getpid() + 1, -9)
    assert not attempt.exit.exists()


def test_a_locked_step_runs_as_its_newest_attempt(store: Store) -> None:
    with claim(store.folder(TRAIN, "run"), "sweep"):
        assert observe(store, TRAIN, "run").phase is Phase.RUNNING, "claimed, and no attempt yet"
        begin(store)
        state = observe(store, TRAIN, "run")
    assert (state.phase, state.attempt) == (Phase.RUNNING, 1)
    assert state.owner is not None
    assert (state.owner.pid, state.owner.sweep) == (os.getpid(), "sweep")


def test_a_worker_that_has_written_its_result_and_is_about_to_let_go_has_ended(store: Store) -> None:
    with claim(store.folder(TRAIN, "run")):
        begin(store).result.write_text(ended(OutcomeStatus.FAILED).to_json())
        assert observe(store, TRAIN, "run").phase is Phase.FAILED


def test_a_worker_that_has_just_claimed_a_failed_step_runs_its_next_attempt(store: Store) -> None:
    attempt = begin(store)
    attempt.result.write_text(ended(OutcomeStatus.FAILED).to_json())
    attempt.started.write_text(json.dumps(asdict(replace(this_process(""), pid=1))))
    with claim(store.folder(TRAIN, "run")):
        state = observe(store, TRAIN, "run")
    assert (state.phase, state.attempt) == (Phase.RUNNING, 2)


def test_attempts_are_ordered_as_numbers(store: Store) -> None:
    for number in (2, 10, 9):
        begin(store, number)
    assert observe(store, TRAIN, "run").attempt == 10
