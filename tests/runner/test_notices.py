"""What a launch sends: failures while it runs, and its end, each at least once, and without a delay of the launch."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store import notice as notices
from modal_app.store import webhook as webhooks
from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from modal_app.store.webhook import NotSent
from runner.api import application
from runner.compare.ranking import compare_sweep
from runner.errors import SweepError
from runner.launch.notices import Notifier, check_notify, run_command
from runner.request import Action, Request
from runner.store.ledger import Event, Ledger
from runner.types import ExecutorChoice, Plan
from tests.runner.builders import finish, finish_run, open_sweep, run
from tests.runner.executors.fakes import Rival
from tests.webhook_server import Webhook, serve_webhook

NAME = "MY_NOTIFY_URL"


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    with serve_webhook() as webhook:
        monkeypatch.setenv(NAME, webhook.address)
        yield webhook


def notifier(plan: Plan, store: Store) -> Notifier:
    begun = Notifier(plan, store, {"webhook": lambda notice: webhooks.send(notice, NAME)})
    begun.begin()
    return begun


def ended(store: Store) -> tuple[Plan, Notifier]:
    """A finished sweep of two runs: one has failed twice, and one has succeeded."""
    good, bad = run({"learning_rate": 1e-3}), run({"learning_rate": 2e-3})
    plan = open_sweep(store, [good, bad])
    finish(store, StepKind.TRAIN, bad.key, OutcomeStatus.FAILED, message="of an earlier launch")
    begun = notifier(plan, store)
    finish(store, StepKind.TRAIN, bad.key, OutcomeStatus.FAILED, message="the loss is NaN")
    finish_run(store, good, {0: 1.0})
    return plan, begun


def test_a_failure_and_the_end_are_sent_once_with_ids_that_a_second_launch_has_too(
    store: Store, webhook: Webhook
) -> None:
    plan, begun = ended(store)
    begun.look()
    webhook.wait_for(lambda: len(webhook.bodies) == 1)
    begun.finish(compare_sweep(store, plan.sweep))
    failed, done = webhook.bodies
    assert (failed["event"], failed["id"]) == ("run failed", f"{plan.sweep}/failed/train/{plan.runs[1].run.key}/2")
    assert failed["text"].endswith("failed: the loss is NaN")
    assert (done["event"], done["counts"]) == ("sweep done", {"succeeded": 1, "failed": 1})
    assert done["text"] == f"axosweep: {plan.sweep} is done: 1 succeeded, 1 failed"

    again = notifier(plan, store)
    again.finish(compare_sweep(store, plan.sweep))
    assert len(webhook.bodies) == 2, "nothing has changed"
    finish(store, StepKind.TRAIN, plan.runs[1].run.key, OutcomeStatus.FAILED)
    again.finish(compare_sweep(store, plan.sweep))
    assert webhook.events() == ["run failed", "sweep done"] * 2, "it was tried again"


def test_a_run_that_is_at_work_when_a_launch_begins_and_then_fails_is_sent(store: Store, webhook: Webhook) -> None:
    """Its launcher was killed."""
    (one,) = runs = [run({"learning_rate": 1e-3})]
    plan = open_sweep(store, runs)
    left = Rival(store, StepKind.TRAIN, one.key)
    begun = notifier(plan, store)
    left.end(OutcomeStatus.FAILED)
    begun.look()
    webhook.wait_for(lambda: bool(webhook.bodies))
    assert webhook.bodies[0]["id"] == f"{plan.sweep}/failed/train/{one.key}/1"


def test_a_run_that_is_at_work_when_a_launch_begins_and_then_dies_is_not_sent(store: Store, webhook: Webhook) -> None:
    """The launch takes it over."""
    (one,) = runs = [run({"learning_rate": 1e-3})]
    plan = open_sweep(store, runs)
    left = Rival(store, StepKind.TRAIN, one.key)
    begun = notifier(plan, store)
    left.kill()
    begun.look(at_once=True)
    finish_run(store, one, {0: 1.0})
    begun.finish(compare_sweep(store, plan.sweep))
    assert webhook.events() == ["sweep done"]


def test_what_a_webhook_does_not_take_is_said_and_sent_by_the_next_launch(
    store: Store, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook.status = 503
    plan, begun = ended(store)
    begun.finish(compare_sweep(store, plan.sweep))
    said = capsys.readouterr().err
    assert said.count("A notice was not sent: the webhook in MY_NOTIFY_URL answered with status 503.") == 1
    claimed = [one.facts["notice"]["id"] for one in Ledger(store, plan.sweep).records() if one.event is Event.NOTICE]
    webhook.status = 200
    notifier(plan, store).finish(compare_sweep(store, plan.sweep))
    assert [body["id"] for body in webhook.bodies] == claimed
    assert not capsys.readouterr().err
    everything = "".join(path.read_text() for path in store.root.rglob("*.json*"))
    assert "very-secret-path" not in everything + said


def test_a_webhook_that_hangs_delays_no_look_and_the_end_only_for_a_moment(
    store: Store, webhook: Webhook, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook.hangs = threading.Event()
    plan, begun = ended(store)
    began = time.monotonic()
    begun.look()
    assert time.monotonic() - began < 1
    begun.finish(compare_sweep(store, plan.sweep), patience_s=0.2)
    assert time.monotonic() - began < 2
    assert "A notice was not sent: it took longer than 0.2 s." in capsys.readouterr().err


def test_a_command_gets_the_body_and_a_failing_or_hanging_one_is_reported(tmp_path: Path) -> None:
    notice = notices.done("rank-1a2b3c", "0", {"succeeded": 2})
    run_command(f"cat > {tmp_path}/body", notice)
    assert json.loads((tmp_path / "body").read_text())["id"] == notice.id
    with pytest.raises(NotSent, match=r"exit code 3$"):
        run_command("exit 3", notice)
    with pytest.raises(NotSent, match=r"did not end within 0\.2 s$"):
        run_command("sleep 60", notice, timeout_s=0.2)


def test_a_variable_that_is_not_set_is_a_mistake_here_and_not_for_modal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    request = Request(Action.LAUNCH, "sweep", None, False, notify=NAME)
    with pytest.raises(SweepError, match=f"notify={NAME}: the environment variable {NAME} is not set"):
        check_notify(ExecutorChoice("local"), request)
    check_notify(ExecutorChoice("modal"), request)


@pytest.mark.parametrize("word", ["notify=https://hooks.example/very?secret", "++notify='https://hooks.example/very'"])
def test_an_address_on_the_command_line_is_refused_and_not_repeated(word: str) -> None:
    with pytest.raises(SweepError, match="export AXOSWEEP_NOTIFY_URL") as error:
        application.run(["lora=r8", word])
    assert "very" not in str(error.value)
