"""The verdict in W&B at the end of a launch: when it is sent, and the message if it is not."""

from __future__ import annotations

import json

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.compare.ranking import Row, compare_sweep
from runner.types import Plan, TrackingChoice
from runner.wandb.verdict import add_verdict, add_verdict_of_tracked
from tests.runner.builders import finish_run, open_sweep, run
from tests.runner.judged_store import draw_losses, write_losses


def launched(store: Store, mode: str, *, offline: str = "") -> tuple[Plan, list[Row]]:
    """Two tracked settings with per-row losses."""
    runs = [run({"learning_rate": rate}, tracking=TrackingChoice(mode, "axosweep")) for rate in (1e-4, 2e-4)]
    for number, one in enumerate(runs):
        finish_run(store, one, {9: 1.0 + number})
        write_losses(store, one, draw_losses(1.0 + number, own=number + 1, rows=50))
        record = {"id": f"id{number}", "group": "sweep", "project": "axosweep", "offline": offline}
        store.folder(StepKind.TRAIN, one.key).tracking.write_text(json.dumps(record))
    planned = open_sweep(store, runs)
    return planned, compare_sweep(store, planned.sweep)


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(store.root / "netrc"))


def test_without_a_key_here_it_is_said_what_adds_the_verdict(store: Store) -> None:
    planned, rows = launched(store, "online")
    said = add_verdict(planned, store, rows)
    assert said.startswith("The verdict is not in W&B. Adding it needs a key for ")
    assert said.endswith("`axosweep sync` adds it.")


@pytest.mark.parametrize(("mode", "offline"), [("offline", ""), ("disabled", ""), ("online", "it did not answer")])
def test_runs_that_are_not_in_wandb_yet_are_left_to_the_sync(store: Store, mode: str, offline: str) -> None:
    planned, rows = launched(store, mode, offline=offline)
    assert add_verdict(planned, store, rows) == ""


@pytest.mark.parametrize(
    ("record", "sent"),
    [
        ({"mode": "online"}, True),
        ({"mode": "online", "offline": "no answer"}, False),
        ({"mode": "offline"}, False),
        ({}, False),
    ],
)
def test_attach_sends_the_verdict_of_runs_that_were_tracked_online(
    store: Store, record: dict[str, str], sent: bool
) -> None:
    planned, rows = launched(store, "online")
    for row in rows:
        path = store.folder(StepKind.TRAIN, row.key).tracking
        path.write_text(json.dumps(json.loads(path.read_text()) | record))
    said = add_verdict_of_tracked(planned.sweep, store, rows)
    assert said.startswith("The verdict is not in W&B. Adding it needs a key") if sent else said == ""


def test_nothing_is_sent_without_losses_by_row(store: Store) -> None:
    planned, rows = launched(store, "online")
    for row in rows:
        store.folder(StepKind.TRAIN, row.key).losses.unlink()
    assert add_verdict(planned, store, rows) == ""


def test_a_wandb_that_does_not_answer_is_a_sentence_and_not_a_failed_launch(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, rows = launched(store, "online")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    said = add_verdict(planned, store, rows)
    assert said.startswith("The verdict is not in W&B. W&B does not answer at http://127.0.0.1:9")
    assert said.endswith("`axosweep sync` adds it.")
