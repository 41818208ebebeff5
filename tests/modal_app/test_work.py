"""What becomes of a run on the local Modal whose worker, container, Volume or call fails. The tests' own worker trains
in place of Axolotl, in no time, and dies when it is told to."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import modal
import pytest
from grpclib import Status

from modal_app.cloud import drafts
from modal_app.store import stop_notes
from modal_app.store.layout import Store
from modal_app.store.smaller_batch import MOST_TIMES
from modal_app.store.step import FailureReason, OutcomeStatus, Share
from runner.cost.spent import containers
from tests.modal_app.cloud import DATA, LAST, STEP, Cloud, clouds, outcome_of, undisturbed
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cloud]]:
    """`cloud({"1": "crash@3"})`: attempt 1 fails in that way."""
    with clouds(monkeypatch) as start:
        yield start


def test_a_worker_that_crashes_goes_on_in_a_fresh_container(cloud: Callable[..., Cloud]) -> None:
    here = cloud({"1": "crash@7"})
    assert here.run() == "succeeded"
    assert here.outcomes == ["", "succeeded"]
    assert here.losses == undisturbed()
    assert len(here.server.tasks("train")) == 2
    assert json.loads(here.attempts[0].exit.read_text())["code"] == -11


def test_a_killed_container_goes_on_from_what_it_had_committed(cloud: Callable[..., Cloud]) -> None:
    here = cloud({"1": "container@7"})
    assert here.run() == "succeeded"
    assert here.outcomes == ["", "succeeded"]
    assert here.losses == undisturbed()


@pytest.mark.parametrize("doom", ["crash@3", "container", "rank@3"])
def test_what_dies_every_time_is_given_up_after_its_attempts(cloud: Callable[..., Cloud], doom: str) -> None:
    """Modal itself would start a dead container again forever."""
    here = cloud({"*": doom})
    assert here.run() == "failed"
    assert here.outcomes == ["failed" if doom == "rank@3" else ""] * 2 + ["failed"]
    outcome = outcome_of(here.attempts[-1])
    assert outcome is not None
    assert outcome.message.startswith("given up after 3 attempts in a row: ")
    assert len(here.server.tasks("train")) == (4 if doom == "container" else 3)


def test_a_run_that_heals_is_not_tried_again_when_its_share_of_the_budget_is_spent(cloud: Callable[..., Cloud]) -> None:
    share = Share(dollars=1.0, seconds=6.0)
    step = replace(STEP, config={"micro_batch_size": 64}, heals=True, share=share)
    here = cloud({"*": "memory@3"}, step_s=1.0, step=step)
    assert here.run() == "failed"
    first, last = outcome_of(here.attempts[0]), outcome_of(here.attempts[-1])
    assert first is not None
    assert last is not None
    assert "out of memory; it is tried again with micro_batch_size=32" in first.message
    assert (last.status, last.reason) == (OutcomeStatus.FAILED, FailureReason.BUDGET)
    assert len(here.attempts) <= MOST_TIMES, "once more would have been possible"


def test_a_run_that_heals_has_as_many_tries_for_other_faults_as_any_run(cloud: Callable[..., Cloud]) -> None:
    """Modal counts all of them, and does not start the call again after the last one."""
    step = replace(STEP, config={"micro_batch_size": 64}, heals=True)
    doom = dict.fromkeys("123", "memory@3") | {"4": "crash@5", "5": "crash@7"}
    here = cloud(doom, step=step, retry_delay_factor=0.0)
    here.server.fail("DictContains")  # before the first attempt
    assert here.run() == "succeeded"
    assert here.outcomes == ["stopped"] * MOST_TIMES + ["", "", "succeeded"]


def test_what_was_given_up_may_be_tried_again_on_request(cloud: Callable[..., Cloud]) -> None:
    here = cloud({str(number): "crash" for number in (1, 2, 3, 4)})
    assert here.run() == "failed"
    with modal.Volume.from_name(here.job.runs_volume, client=here.client).batch_upload() as batch:
        batch.put_file(io.BytesIO(b""), "/runs/run/containers/ta-cut.json")  # a container's record that is damaged
    assert here.run() == "succeeded"
    assert here.outcomes == ["", "", "failed", "", "succeeded"]


@pytest.mark.parametrize("deaf", [False, True], ids=["in time to save", "and killed before it has saved"])
def test_preemptions_do_not_use_up_the_attempts(cloud: Callable[..., Cloud], deaf: bool) -> None:
    deafness = {"1": "deaf@0", "2": "deaf@0", "3": "deaf@0"} if deaf else {}
    here = cloud(deafness | {"4": "crash"}, step_s=0.2, grace_s=1.0 if deaf else 10.0)
    call = here.start()
    for number in (1, 2, 3):
        here.wait_for_training(number)
        here.server.preempt(here.server.tasks_of(call.object_id)[-1].id)
    assert call.get(timeout=60)["status"] == "succeeded"
    assert here.outcomes == ["" if deaf else "stopped"] * 3 + ["", "succeeded"]
    assert here.losses == undisturbed()


def test_a_run_longer_than_its_limit_is_continued_by_other_calls(cloud: Callable[..., Cloud]) -> None:
    here = cloud({}, step_s=0.25)
    assert here.run(limit_s=4) == "continued"
    calls = here.wait_for_all()
    assert len(calls) == len(here.attempts) > 1
    assert here.outcomes == ["stopped"] * (len(calls) - 1) + ["succeeded"]
    assert here.losses == undisturbed()
    assert {call.status for call in calls} == {"success"}, "nothing that looks like a failure to Modal"


def test_a_run_that_gets_nowhere_within_its_limit_fails(cloud: Callable[..., Cloud]) -> None:
    here = cloud({"*": "idle@0"})
    assert here.run(limit_s=4) == "failed"
    (attempt,) = here.attempts
    outcome = outcome_of(attempt)
    assert outcome is not None
    assert outcome.reason == "timeout"
    assert "without getting further than at its start" in outcome.message


def test_a_run_that_would_begin_again_in_each_call_fails_at_its_limit(cloud: Callable[..., Cloud]) -> None:
    """It has checkpoints, but cannot go on from them: each call would be paid for nothing."""
    here = cloud({"1": "idle@3"}, step=replace(STEP, config={"relora": True, "load_in_4bit": True}))
    assert here.run(limit_s=4, timeout_s=60) == "failed"
    outcome = outcome_of(here.attempts[-1])
    assert outcome is not None
    assert outcome.reason == "timeout"
    assert len(here.server.function_calls()) == 1


def test_a_worker_that_does_not_stop_in_time_is_killed_and_tried_again(cloud: Callable[..., Cloud]) -> None:
    here = cloud({"1": "deaf@5"}, step_s=0.5, save_steps=5)
    here.start(limit_s=9)
    calls = here.wait_for_all()
    assert {call.status for call in calls} == {"success"}, "it was over before Modal's own timeout"
    assert json.loads(here.attempts[0].exit.read_text())["code"] == -9
    assert stop_notes.killed_by(here.attempts[0]) == "its call, whose time was over"
    assert here.outcomes[0] == ""
    assert here.outcomes[-1] == "succeeded"
    assert here.losses == undisturbed()


def test_a_worker_whose_share_of_the_budget_is_spent_is_killed_before_its_call_is_over(
    cloud: Callable[..., Cloud],
) -> None:
    """Otherwise, Modal would end the call, copy no checkpoint, and start it in another container."""
    here = cloud({"1": "deaf@0"}, step_s=0.5, step=replace(STEP, share=Share(dollars=1.0, seconds=4.0)))
    assert here.run(limit_s=6, timeout_s=60) == "failed"
    (attempt,) = here.attempts
    outcome = outcome_of(attempt)
    assert outcome is not None
    assert outcome.reason is FailureReason.BUDGET
    assert stop_notes.killed_by(attempt) == "its call, whose time was over"


def test_a_call_that_is_cancelled_saves_what_it_has(cloud: Callable[..., Cloud]) -> None:
    here = cloud({}, step_s=0.25)
    call = here.start()
    here.wait_for_training(1)
    call.cancel()
    here.server.wait_until(lambda: here.outcomes == ["stopped"])
    assert json.loads(here.attempts[0].container.read_text())["asked"] == "InputCancellation"
    assert here.run() == "succeeded"
    assert here.losses == undisturbed()


def test_a_second_request_to_stop_does_not_cut_off_what_the_first_one_saves(cloud: Callable[..., Cloud]) -> None:
    """Modal interrupts a container some time after it has cancelled its call, and may preempt it at any time."""
    here = cloud({}, step_s=2.0, save_steps=LAST, grace_s=10.0)
    call = here.start()
    here.wait_for_training(1)
    call.cancel()
    noted = "t/*/volumes/*/runs/run/attempt-1/container.json"
    here.server.wait_until(lambda: any('"asked"' in path.read_text() for path in here.server.folder.glob(noted)))
    here.server.preempt(here.server.tasks_of(call.object_id)[0].id)
    here.server.wait_until(lambda: all(task.ended_at for task in here.server.tasks()))
    assert here.outcomes == ["stopped"]
    assert drafts.newest_step(here.runs.folder(STEP.kind, STEP.key)) > 0


def test_a_call_that_is_cancelled_while_it_publishes_a_finished_run_publishes_it(cloud: Callable[..., Cloud]) -> None:
    here = cloud({})
    release = here.server.hold("VolumeCommit", nth=3)  # its files have been moved
    call = here.start()
    here.server.wait_until(lambda: len(here.server.calls("VolumeCommit")) == 3, 60)
    call.cancel(terminate_containers=True)
    here.server.wait_until(lambda: all(task.ended_at for task in here.server.tasks()), 20)
    release()
    folder = here.runs.folder(STEP.kind, STEP.key)
    assert folder.done.read_text() == here.attempts[0].result.read_text()
    (record,) = containers(folder)
    assert record.ended


def test_a_commit_that_modal_cannot_take_for_a_while_is_repeated(cloud: Callable[..., Cloud]) -> None:
    here = cloud({})
    for nth in range(1, 6):
        here.server.fail("VolumeCommit", nth=nth, status=Status.UNAVAILABLE)
    assert here.run() == "succeeded"
    assert here.outcomes == ["succeeded"]
    assert here.losses == undisturbed()


def test_a_commit_that_is_refused_for_good_is_a_lost_attempt(cloud: Callable[..., Cloud]) -> None:
    """Nothing else ever saw its result or its losses: they are created again."""
    here = cloud({})
    for nth in range(2, 7):  # all but the first; the last one is the client's own, at the container's end
        here.server.fail_commit(here.job.runs_volume, nth=nth)
    assert here.run() == "succeeded"
    assert here.outcomes == ["", "succeeded"]
    assert here.losses == undisturbed()


def test_a_reload_that_is_refused_is_repeated(cloud: Callable[..., Cloud]) -> None:
    here = cloud({})
    here.server.fail_reload(here.job.runs_volume)
    assert here.run() == "succeeded"
    assert here.outcomes == ["succeeded"]


def test_an_undisturbed_call_makes_no_more_requests_than_it_needs(cloud: Callable[..., Cloud]) -> None:
    """A GPU waits during each request."""
    here = cloud({})
    assert here.run() == "succeeded"
    (task,) = here.server.tasks("train")
    here.server.wait_until(lambda: all(one.ended_at for one in here.server.tasks()))
    asked = here.server.counts(task.id)
    assert {name: number for name, number in asked.items() if name.startswith(("Dict", "Volume"))} == {
        "DictGetOrCreate": 1,
        "DictGet": 1,  # it is not claimed
        "DictContains": 2,  # nor cancelled; nothing waits for its end
        "DictUpdate": 4,  # its claim, its attempt, the published draft, its end
        "VolumeGetOrCreate": 2,
        "VolumeReload": 3,  # both before it begins, and the runs before it publishes
        "VolumeCommit": 6,  # the attempt, the draft, its files moved, that it is done; both when the container ends
    }


def test_files_that_are_open_for_a_while_after_the_end_do_not_undo_it(cloud: Callable[..., Cloud]) -> None:
    here = cloud({"1": "linger@19"}, reload_after_commit=True)
    assert here.run() == "succeeded"
    assert here.outcomes == ["succeeded"]


def test_a_call_that_died_between_its_result_and_its_word_says_it_again(cloud: Callable[..., Cloud]) -> None:
    here = cloud({})
    call = here.start()
    here.kill_at("DictUpdate", 4, call)
    assert call.get(timeout=60)["status"] == "succeeded"
    assert here.outcomes == ["succeeded"]
    assert len(here.server.tasks_of(call.object_id)) == 2
    assert here.server.dict_items(here.job.claims)["ended/train/run"]["status"] == "succeeded"


def test_a_failure_is_not_tried_again_by_a_call_that_died_before_it_said_so(cloud: Callable[..., Cloud]) -> None:
    here = cloud({"*": "fail@3"})
    call = here.start()
    here.kill_at("DictUpdate", 3, call)
    assert call.get(timeout=60) == {"name": "train/run", "status": "failed", "message": "there was no sense in it"}
    assert here.outcomes == ["failed"]
    assert len(here.server.tasks_of(call.object_id)) == 2


@pytest.mark.parametrize("after", [False, True])
def test_a_call_that_dies_while_it_makes_its_successor_leaves_one_that_goes_on(
    cloud: Callable[..., Cloud], after: bool
) -> None:
    here = cloud({}, step_s=0.25)
    call = here.start(limit_s=4)
    here.kill_at("FunctionMap", 1, call, after=after)
    here.wait_for_all()
    assert here.losses == undisturbed()
    assert here.outcomes == ["stopped"] * (len(here.attempts) - 1) + ["succeeded"], "no run disturbed another"


def test_a_call_that_is_faster_than_its_claim_claims_for_itself(cloud: Callable[..., Cloud]) -> None:
    here = cloud({}, step_s=0.25)
    claim = here.server.hold("DictUpdate", nth=3)  # the first call's record of the second
    here.start(limit_s=4, timeout_s=60)
    here.server.wait_until(lambda: [call.status for call in here.server.function_calls()][1:2] == ["success"], 60)
    claim()
    here.wait_for_all()
    assert here.outcomes[-1] == "succeeded"
    assert here.losses == undisturbed()


def test_a_run_cancelled_between_its_call_and_its_claim_is_not_trained(cloud: Callable[..., Cloud]) -> None:
    """A dataset that was just prepared starts its runs one after the other: a cancelling process sees only those with
    claims."""
    here = cloud({})
    modal.Dict.from_name(here.job.claims, create_if_missing=True, client=here.client).put("cancelled/train/run", 1.0)
    assert here.run() == "cancelled"
    assert here.attempts == []


def test_a_run_cancelled_while_it_is_handed_on_is_not_continued(cloud: Callable[..., Cloud]) -> None:
    """A cancelling process may see only the call that is about to pass it on."""
    here = cloud({}, step_s=0.25)
    call = here.start(limit_s=4)
    here.wait_for_training(1)
    modal.Dict.from_name(here.job.claims, create_if_missing=True, client=here.client).put("cancelled/train/run", 1.0)
    assert call.get(timeout=60)["status"] == "continued"
    calls = here.wait_for_all()
    assert len(calls) == 2
    assert here.outcomes == ["stopped"]


@pytest.mark.parametrize(
    ("name", "nth", "after"),
    [("DictUpdate", 4, False), ("DictUpdate", 4, True), ("FunctionMap", 1, True)],
    ids=["before it says that it is done", "before it starts what waits", "before it notes what it has started"],
)
def test_a_dataset_whose_container_dies_at_its_end_still_starts_its_run_and_that_once(
    cloud: Callable[..., Cloud], name: str, nth: int, after: bool
) -> None:
    here = cloud({})
    here.kill_at(name, nth, here.start(name="preprocess/data", function="preprocess", awaited=True), after=after)
    here.wait_for_all()
    assert here.outcomes == ["succeeded"]
    assert here.losses == undisturbed()
    dataset = Store(here.server.volume_tree(here.job.cache_volume)).folder(DATA.kind, DATA.key)
    assert len(dataset.attempts()) == 1


def test_fetching_that_kills_its_container_every_time_is_given_up(cloud: Callable[..., Cloud]) -> None:
    here = cloud({})
    assert here.run(name="fetch/owner/model@c0ffee", function="fetch") == "failed"
    assert [task.exit_code for task in here.server.tasks("fetch")][:3] == [137, 137, 137]
    assert len(here.server.tasks("fetch")) == 4


def test_a_run_that_modal_refuses_to_start_says_so_and_its_dataset_has_ended(cloud: Callable[..., Cloud]) -> None:
    """A permanent refusal: the call does not stay alive for further tries."""
    here = cloud({})
    call = here.start(name="preprocess/data", function="preprocess", awaited=True)
    here.server.fail("FunctionMap", status=Status.PERMISSION_DENIED, message="the spend limit is reached")
    assert call.get(timeout=60)["status"] == "succeeded"
    entries = here.server.dict_items(here.job.claims)
    assert entries["refused/train/run"] == "Modal did not start it: the spend limit is reached"
    assert len(here.server.tasks_of(call.object_id)) == 1


def test_a_run_that_modal_refuses_to_continue_says_so_in_its_result(cloud: Callable[..., Cloud]) -> None:
    here = cloud({}, step_s=0.25)
    call = here.start(limit_s=4)
    here.server.fail("FunctionMap", status=Status.PERMISSION_DENIED, message="the spend limit is reached")
    assert call.get(timeout=60)["status"] == "continued"
    (outcome,) = [outcome_of(one) for one in here.attempts]
    assert outcome is not None
    assert outcome.status == "stopped"
    assert outcome.message.endswith("; Modal did not start it: the spend limit is reached")


def test_a_second_call_leaves_a_run_to_the_first_one_though_the_dict_was_cleared(cloud: Callable[..., Cloud]) -> None:
    """As after seven days in which no process has read the claim."""
    here = cloud({"1": "idle@3"})
    first = here.start()
    here.wait_for_training(1)
    claims = modal.Dict.from_name(here.job.claims, create_if_missing=True, client=here.client)
    claims.clear()
    assert here.run() == "claimed"
    assert len(here.attempts) == 1
    first.cancel()
    here.server.wait_until(lambda: here.outcomes == ["stopped"])


def test_a_call_whose_connection_is_lost_does_not_look_as_if_modal_had_not_answered(
    cloud: Callable[..., Cloud],
) -> None:
    """A process that queries a call gets the error that the call has raised."""
    here = cloud({})
    call = here.start(name="preprocess/data", function="preprocess", awaited=True)
    here.server.lose_connection("DictContents")
    assert call.get(timeout=60)["status"] == "succeeded"
    assert "RuntimeError: ConnectionError: the connection was lost" in here.server.log(function="preprocess")
    assert [one.status for one in here.wait_for_all()] == ["success", "success"]
