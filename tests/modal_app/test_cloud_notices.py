"""Which notices of a sweep on Modal are due, according to the claims alone, and that each arrives at least once, with
one id."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import modal
import pytest

from modal_app.cloud.notices import FUNCTION, Spending, WatchedSweep, due
from modal_app.store import notice as notices
from modal_app.store.layout import StepFolder
from modal_app.store.notice import Notice, NoticeKind
from modal_app.store.step import Share
from tests.modal_app.cloud import Cloud, clouds
from tests.modal_app.container_records import record_of
from tests.modal_server.fixture import needs_mounts
from tests.webhook_server import PATH, Webhook, serve_webhook

NAME = "MY_NOTIFY_URL"
NEEDS: dict[str, list[str]] = {"preprocess/d": [], "train/a": ["preprocess/d"], "train/b": ["preprocess/d"]}
SWEEP = WatchedSweep("s", NAME, "app", "claims", NEEDS, finished=1)
DATA = {"preprocess/d": {"call": "1", "sweep": "s"}, "ended/preprocess/d": {"by": "1", "status": "succeeded"}}


def run(name: str, call: str, status: str = "", message: str = "") -> dict[str, Any]:
    """The entries of a run that a call works on, or has ended."""
    ended = {f"ended/train/{name}": {"by": call, "status": status, "message": message}} if status else {}
    return {f"train/{name}": {"call": call, "sweep": "s"}, **ended}


def found(*entries: dict[str, Any], watched: WatchedSweep = SWEEP, lost: tuple[str, ...] = ()) -> list[Notice]:
    merged = {key: value for one in (DATA, *entries) for key, value in one.items()}
    return due(watched, merged, lambda name, call: call in lost)


def counts(*entries: dict[str, Any], **others: Any) -> dict[str, int] | None:
    """The counts in the notice that the sweep is done; None without a notice."""
    over = [one for one in found(*entries, **others) if one.event is NoticeKind.DONE]
    return dict(over[0].counts) if over else None


def test_a_sweep_is_done_when_its_last_run_has_ended_and_its_failures_are_reported_at_once() -> None:
    half = (run("a", "2", "failed", "NaN"), run("b", "3"))
    assert [(one.event, one.run, one.text) for one in found(*half)] == [
        (NoticeKind.FAILED, "a", "axosweep: s: run a failed: NaN")
    ]
    whole = (half[0], run("b", "3", "succeeded"))
    assert counts(*whole) == {"failed": 1, "succeeded": 2}
    assert [one.id for one in found(*whole)] == [one.id for one in found(*whole)]


def test_a_search_of_which_further_rounds_may_follow_is_not_done() -> None:
    ended = (run("a", "2", "failed", "NaN"), run("b", "3", "succeeded"))
    assert [one.event for one in found(*ended, watched=replace(SWEEP, further=True))] == [NoticeKind.FAILED]


def test_a_sweep_whose_dataset_has_failed_is_done_and_its_runs_were_not_started() -> None:
    failed = {"ended/preprocess/d": {"by": "1", "status": "failed", "message": "no such column"}}
    assert counts(failed) == {"not started": 2, "succeeded": 1}
    assert found(failed)[0].text == "axosweep: s: dataset d failed: no such column"


@pytest.mark.parametrize(
    ("entries", "lost", "expected"),
    [
        ({}, (), None),
        ({"train/b": {"call": "3", "sweep": "s"}}, (), None),
        ({"train/b": {"call": "3", "sweep": "s"}}, ("3",), {"succeeded": 2, "lost": 1}),
        ({"cancelled/train/b": 1.0}, (), {"succeeded": 2, "cancelled": 1}),
        ({"refused/train/b": "a spend limit"}, (), {"succeeded": 2, "not started": 1}),
    ],
    ids=["not called yet", "works", "lost", "cancelled", "refused"],
)
def test_a_run_that_has_not_ended_by_itself_is_waited_for_only_while_it_can_end(
    entries: dict[str, Any], lost: tuple[str, ...], expected: dict[str, int] | None
) -> None:
    assert counts(run("a", "2", "succeeded"), entries, lost=lost) == expected


def test_a_lost_run_is_named_with_the_reason_when_the_rest_of_its_sweep_has_ended() -> None:
    works = {"train/b": {"call": "3", "sweep": "s"}}
    assert not found(run("a", "2"), works, lost=("3",)), "a may still start it again"
    lost, done = found(run("a", "2", "succeeded"), works, lost=("3",))
    assert (lost.event, lost.run, done.event) == (NoticeKind.FAILED, "b", NoticeKind.DONE)
    assert lost.text == "axosweep: s: run b failed: lost: its call on Modal has ended without a result"
    works |= {"train/b/after/3": {"call": "4", "sweep": "s"}}
    again, _ = found(run("a", "2", "succeeded"), works, lost=("4",))
    assert again.id != lost.id, "it was lost again"


def test_what_an_earlier_launch_has_left_is_not_taken_for_the_end_of_this_one() -> None:
    again = WatchedSweep("s", NAME, "app", "claims", NEEDS, earlier={"train/b": "3"})
    earlier = (run("a", "2", "succeeded"), run("b", "3", "failed", "NaN"))
    assert not found(*earlier, watched=again, lost=("3",))
    next_call = {"train/b/after/3": {"call": "4", "sweep": "s"}}
    assert not found(*earlier, next_call, watched=again, lost=("3",))
    over = {**next_call, "ended/train/b": {"by": "4", "status": "failed", "message": "NaN"}}
    first, second = found(*earlier)[0].id, found(*earlier, over, watched=again)[0].id
    assert first != second, "it has failed again"


def search(**others: dict[str, Any]) -> dict[str, Any]:
    """The entries of two runs that have both reached their rung. The better one came first, so it has stopped."""
    values: dict[str, dict[str, Any]] = {
        "terms": {"rates": {"a": None, "b": None}, "fractions": [0.5], "eta": 2},
        "loss/1/a": {"loss": 1.0, "max_steps": 10, "eval_fingerprint": None},
        "loss/1/b": {"loss": 2.0, "max_steps": 10, "eval_fingerprint": None},
        "stop/1/a": {"at": 1.0},
    }
    return {f"rung/s/hash/{name}": {"value": value, "nonce": ""} for name, value in (values | others).items()}


def test_a_sweep_is_done_when_it_is_certain_which_of_its_runs_stay_at_a_rung() -> None:
    stopped = run("a", "2", "stopped at rung"), run("b", "3", "stopped at rung")
    stop, go = {"stop/1/b": {"at": 1.0}}, {"go/1/a": {"why": "top"}}
    assert counts(*stopped, search(**go)) is None, "no call has looked since b has ended"
    assert counts(*stopped, search(**stop)) is None, "the next look lets a go on"
    assert counts(*stopped, search(**stop, **go)) is None, "a is about to be called"
    called = {"train/a/after/2": {"call": "4", "sweep": "s"}}
    assert counts(*stopped, search(**stop, **go), called) is None
    over = {**called, "ended/train/a": {"by": "4", "status": "succeeded", "message": ""}}
    assert counts(*stopped, search(**stop, **go), over) == {"succeeded": 2, "stopped at rung": 1}


def test_an_entry_of_another_version_is_read_as_far_as_it_is_known_or_passed_over() -> None:
    entry = asdict(SWEEP)
    assert WatchedSweep.of({**entry, "a_newer_field": 1}) == SWEEP
    assert WatchedSweep.of({key: value for key, value in entry.items() if key != "needs"}) is None


def test_most_of_a_budget_counts_what_is_set_aside_for_preparing() -> None:
    watched = WatchedSweep("s", NAME, "app", "claims", NEEDS, budget=10.0, set_aside=1.0)
    working = (run("a", "2"), run("b", "3"))
    assert not found({"spent/s/train/a": 4.0, "spent/s/train/b": 2.9}, *working, watched=watched)
    (one,) = found({"spent/s/train/a": 4.0, "spent/s/train/b": 3.1, "spent/t/x": 9.0}, *working, watched=watched)
    assert (one.event, one.id) == (NoticeKind.BUDGET, "s/budget/10")
    assert one.text == "axosweep: s has spent 81% of its budget: $8.10 of $10.00"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cloud]]:
    with clouds(monkeypatch) as start:
        yield start


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with serve_webhook() as webhook:
        yield webhook


@pytest.mark.slow
@needs_mounts
def test_a_notice_is_sent_until_it_is_confirmed_and_then_no_more(
    cloud: Callable[..., Cloud], webhook: Webhook, tmp_path: Path
) -> None:
    there = cloud({}, secret={NAME: webhook.address})
    notice = notices.done("s", "0", {"succeeded": 1})
    request = {"notice": notice.to_json(), "variable": NAME, "claims": there.job.claims}
    notify: modal.Function[..., Any, Any] = modal.Function.from_name(there.job.app, FUNCTION, client=there.client)

    webhook.status = 503
    call = notify.spawn(json.dumps(request))
    webhook.wait_for(lambda: len(webhook.refused) > 0)
    webhook.status = 200
    assert call.get(timeout=60) == {"id": notice.id, "status": "sent"}
    assert [one["id"] for one in webhook.bodies] == [notice.id]
    assert notify.remote(json.dumps(request))["status"] == "sent before"
    assert len(webhook.bodies) == 1

    # A container that dies after it has sent, before it could confirm: the same call sends the same id again.
    again = {**request, "notice": notices.done("s", "1", {"succeeded": 1}).to_json()}
    call = there.kill_at("DictUpdate", 2, lambda: notify.spawn(json.dumps(again)))  # the first is its claim
    assert call.get(timeout=60)["status"] == "sent"
    assert [one["id"] for one in webhook.bodies] == [notice.id, "s/done/1", "s/done/1"]

    # A run that has spent, with what is set aside, most of its sweep's budget.
    claims: modal.Dict = modal.Dict.from_name(there.job.claims, client=there.client)
    folder = StepFolder(tmp_path, tmp_path / "result.json")
    folder.containers.mkdir()
    (folder.containers / "one.json").write_text(record_of(80.0))
    spending = Spending(claims, there.job, Share(8.0, 100.0), folder)
    spending.tick(now=True)
    assert not there.server.dict_items(there.job.claims).keys() & {f"spent/{there.job.sweep}/train/run"}, "not watched"
    names = (there.job.sweep, NAME, there.job.app, there.job.claims)
    WatchedSweep(*names, {"train/run": []}, budget=10, set_aside=2).watch(claims)
    spending.tick(now=True)
    webhook.wait_for(lambda: len(webhook.bodies) == 4)
    assert webhook.bodies[3]["text"] == "axosweep: sweep has spent 84% of its budget: $8.40 of $10.00"
    there.wait_for_all()
    entries = there.server.dict_items(there.job.claims)
    assert {key.partition("/")[0] for key in entries} == {"notice", "sent", "watched", "awaited", "spent"}
    said = there.server.log(function=FUNCTION) + json.dumps(entries)
    assert "answered with status 503" in said
    assert PATH not in said
