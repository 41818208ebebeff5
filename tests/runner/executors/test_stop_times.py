"""How long a stop will take, according to the message."""

from __future__ import annotations

import json
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.executors.stop_times import stop_message, usual_stop_s
from tests.runner.builders import begin_attempt

SAVED = {"global_step": 13, "resumed_from": 2, "saves": 2, "phases": {"first": 9.0, "train": 20.0, "save": 6.0}}


def run(store: Store, *states: dict[str, Any]) -> str:
    """A run with an attempt for each state that the training has written."""
    for state in states:
        begin_attempt(store, StepKind.TRAIN, "run").train_state.write_text(json.dumps(state))
    return "run"


def test_a_step_and_a_save_are_measured_on_the_run_itself_without_its_first_step(store: Store) -> None:
    assert usual_stop_s(store.folder(StepKind.TRAIN, run(store, SAVED))) == pytest.approx(2.0 + 3.0)


def test_what_the_newest_attempt_has_not_done_yet_is_known_from_an_earlier_one(store: Store) -> None:
    begun = {"global_step": 13, "resumed_from": 13, "saves": 0, "phases": {"load": 4.0}}
    assert usual_stop_s(store.folder(StepKind.TRAIN, run(store, SAVED, begun))) == pytest.approx(5.0)


def test_before_the_first_save_nothing_is_promised(store: Store) -> None:
    run(store, SAVED | {"saves": 0})
    assert usual_stop_s(store.folder(StepKind.TRAIN, "run")) is None
    assert "but how long that takes is not known yet" in stop_message(store, [(StepKind.TRAIN, "run")], "Ctrl-C again")


def test_the_message_says_how_long_it_takes_and_what_kills(store: Store) -> None:
    message = stop_message(store, [(StepKind.TRAIN, run(store, SAVED))], "Ctrl-C again")
    assert message.startswith("The run finishes its step and saves a checkpoint, which usually takes 5.0 s.")
    assert "Ctrl-C again kills at once" in message


def test_of_what_stops_at_once_nothing_is_said(store: Store) -> None:
    begin_attempt(store, StepKind.TRAIN, "run")  # it has not begun to train
    begin_attempt(store, StepKind.INFER, "base/abc")
    assert stop_message(store, [(StepKind.TRAIN, "run"), (StepKind.INFER, "base/abc")], "Ctrl-C again") == ""
