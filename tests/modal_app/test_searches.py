"""Rungs on the local Modal: runs that stop, go on and fail there, with no process except their calls. The tests' own
worker trains in place of Axolotl, in no time."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import modal
import pytest
from grpclib import Status

from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import Share, StepKind
from runner.executors.modal_mirror import ModalMirror, follow
from runner.executors.modal_searches import ModalSearches
from runner.executors.modal_submission import MirroredStep, Names
from runner.store.ledger import Ledger
from tests.modal_app.cloud import LAST, Cloud, clouds
from tests.modal_app.container_records import record_of
from tests.modal_app.halved_cloud import RUNG, SEARCH, HalvedCloud
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

SIX = {f"r{number}": 1.0 + 0.1 * (5 * number % 6) for number in range(6)}
"""Good and bad runs come alternately."""


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cloud]]:
    with clouds(monkeypatch) as start:
        yield start


def test_six_runs_without_a_client_are_halved_to_the_end(cloud: Callable[..., Cloud]) -> None:
    here = HalvedCloud.on(cloud({}), SIX, fractions=(0.2, 0.6), eta=3)
    here.start()
    calls = here.cloud.wait_for_all()
    assert {call.status for call in calls} == {"success"}
    assert here.all_have_gone_that_should()
    phases = Counter(here.phases.values())
    assert phases["succeeded"] + phases["stopped at rung"] == 6
    assert phases["stopped at rung"] >= 2
    assert here.phases["r0"] == "succeeded", "it is the best one"
    for run, phase in here.phases.items():
        steps = here.steps_trained(run)
        assert steps == list(range(1, len(steps) + 1)), "no step twice"
        assert steps[-1] == LAST if phase == "succeeded" else steps[-1] in (RUNG, 3 * RUNG)
    stops = sum(name.startswith("stop/") for name in here.entries)
    started = len(calls) - 6
    stopped = phases["stopped at rung"]
    assert started == stops - stopped, "a call for each promotion, and none more"
    # Nothing is rented any more.
    here.cloud.server.wait_until(lambda: all(task.ended_at for task in here.cloud.server.tasks()))


TWO = {"good": 1.0, "bad": 2.0}
"""The good one comes first, and stops, since it is alone. When the bad one has come, the good one goes on."""


def come_to_rest(here: HalvedCloud) -> None:
    """Two runs, the second of which fails. In each case, the first one is promoted, and trained once."""
    here.cloud.wait_for_all()
    assert here.phases == {"good": "succeeded", "bad": "stopped at rung"}
    assert here.all_have_gone_that_should()
    assert here.steps_trained("good") == list(range(1, LAST + 1))
    assert here.cloud.server.dict_items(here.cloud.job.claims)["ended/train/good"]["status"] == "succeeded"


@pytest.mark.parametrize("doom", ["container@2", "asked", "told"])
def test_a_container_killed_before_or_at_its_rung_takes_no_decision_along(
    cloud: Callable[..., Cloud], doom: str
) -> None:
    here = HalvedCloud.on(cloud({"bad/1": doom}), TWO)
    for run in TWO:
        here.start(run)[0].get(timeout=60)
    come_to_rest(here)
    assert len(here.cloud.server.tasks("train")) == 4
    assert here.steps_trained("bad")[-1] == RUNG


@pytest.mark.parametrize(
    ("name", "nth", "after"),
    [("DictUpdate", 4, False), ("DictUpdate", 6, False), ("FunctionMap", 2, True)],  # the first one is this test's own
    ids=["has ended", "goes on", "was called"],
)
def test_a_container_killed_after_its_rung_leaves_nothing_undone(
    cloud: Callable[..., Cloud], name: str, nth: int, after: bool
) -> None:
    """Before it records that the run has ended, that the other one goes on, and that it has called that one."""
    here = HalvedCloud.on(cloud({}), TWO)
    here.start("good")[0].get(timeout=60)
    here.cloud.kill_at(name, nth, lambda: here.start("bad")[0], after=after)
    come_to_rest(here)
    assert len(here.cloud.runs.folder(StepKind.TRAIN, "bad").attempts()) == 1


def test_a_call_delivered_twice_at_its_rung_is_decided_once(cloud: Callable[..., Cloud]) -> None:
    here = HalvedCloud.on(cloud({}), TWO)
    here.start("good")[0].get(timeout=60)
    server, before = here.cloud.server, len(here.cloud.server.calls("DictUpdate"))
    release = server.hold("DictUpdate", nth=3, container=1)  # it records what it has reached
    (call,) = here.start("bad")
    server.wait_until(lambda: len(server.calls("DictUpdate")) == before + 3, 60)
    server.redeliver(call.object_id)
    assert call.get(timeout=60)["status"] == "stopped at rung"
    release()
    server.wait_until(lambda: all(task.ended_at for task in server.tasks()), 60)
    come_to_rest(here)
    assert len(server.function_calls()) == 3


def test_a_preemption_while_a_run_waits_for_its_answer_saves_at_once_and_asks_again(
    cloud: Callable[..., Cloud],
) -> None:
    here = HalvedCloud.on(cloud({}, grace_s=10.0), TWO)
    here.start("good")[0].get(timeout=60)
    server, before = here.cloud.server, len(here.cloud.server.calls("DictUpdate"))
    release = server.hold("DictUpdate", nth=3)
    (call,) = here.start("bad")
    server.wait_until(lambda: len(server.calls("DictUpdate")) == before + 3, 60)
    server.preempt(server.tasks_of(call.object_id)[-1].id)
    server.wait_until(lambda: server.tasks_of(call.object_id)[0].ended_at, 30)
    release()
    come_to_rest(here)
    first, _ = here.cloud.runs.folder(StepKind.TRAIN, "bad").attempts()
    assert json.loads(first.result.read_text())["status"] == "stopped"
    assert here.steps_trained("bad") == list(range(1, RUNG + 1))


def test_what_waits_for_a_run_waits_while_that_is_at_a_rung(cloud: Callable[..., Cloud]) -> None:
    """In its own sweep, and in another one that was launched meanwhile."""
    here = HalvedCloud.on(cloud({}), {**TWO, "own": 9.0, "other": 8.0}, waits={"good": "own"})
    server, release = here.cloud.server, here.cloud.server.hold("DictUpdate", nth=4)  # it has ended
    (call,) = here.start("good")
    server.wait_until(lambda: len(server.calls("DictUpdate")) == 4, 60)
    here.claims.put(f"waiting/{call.object_id}/train/other", here.job("other").to_json())
    release()
    assert call.get(timeout=60)["status"] == "stopped at rung"
    assert (here.calls_of("own"), here.calls_of("other")) == (0, 0)
    here.start("bad")[0].get(timeout=60)
    here.cloud.wait_for_all()
    assert here.phases["good"] == "succeeded"
    assert (here.calls_of("own"), here.calls_of("other")) == (1, 1)


def test_entries_that_modal_has_deleted_are_put_back_before_any_decision(cloud: Callable[..., Cloud]) -> None:
    here = HalvedCloud.on(cloud({}), TWO)
    here.start("good")[0].get(timeout=60)
    here.claims.clear()
    here.start("bad")[0].get(timeout=60)
    come_to_rest(here)


def test_a_run_that_modal_does_not_answer_goes_on_and_what_it_has_reached_is_put_later(
    cloud: Callable[..., Cloud],
) -> None:
    here = HalvedCloud.on(cloud({}, step_s=0.3, waits_s=0.3), TWO)
    for nth in range(3, 11):
        here.cloud.server.fail("DictUpdate", nth=nth, status=Status.UNAVAILABLE)
    assert here.start("good")[0].get(timeout=60)["status"] == "succeeded"
    assert here.entries["loss/1/good"]["loss"] == 1.0


@pytest.mark.parametrize(("doom", "entry"), [("nan@2", "loss/1/bad"), ("fail@2", "out/0/bad")])
def test_no_run_waits_for_one_that_has_diverged_or_failed_on_its_way(
    cloud: Callable[..., Cloud], doom: str, entry: str
) -> None:
    here = HalvedCloud.on(cloud({"*": doom, "good/1": "", "good/2": ""}), TWO)
    here.start("good")[0].get(timeout=60)
    assert here.start("bad")[0].get(timeout=60)["status"] == "failed"
    here.cloud.wait_for_all()
    assert here.phases == {"good": "succeeded", "bad": "failed"}
    assert entry in here.entries


def test_a_promoted_run_that_fails_is_not_started_again(cloud: Callable[..., Cloud]) -> None:
    here = HalvedCloud.on(cloud({"good/2": "fail@10"}), {**TWO, "worst": 3.0}, eta=3)
    for run in ("good", "bad", "worst"):
        here.start(run)[0].get(timeout=60)
    here.cloud.wait_for_all()
    assert here.phases == {"good": "failed", "bad": "succeeded", "worst": "stopped at rung"}
    assert len(here.cloud.server.function_calls()) == 5


def test_a_cancelled_run_and_one_whose_share_is_spent_do_not_go_on(cloud: Callable[..., Cloud]) -> None:
    """A run has one share, which pays for its parts before and after the rung."""
    losses = {"cancelled": 0.5, **TWO, "worse": 3.0}
    here = HalvedCloud.on(cloud({}), losses, share=Share(dollars=0.5, seconds=3600.0))
    here.start("cancelled")[0].get(timeout=60)
    here.claims.put("cancelled/train/cancelled", 1.0)
    here.start("good")[0].get(timeout=60)
    with modal.Volume.from_name(here.cloud.job.runs_volume, client=here.cloud.client).batch_upload() as batch:
        batch.put_file(io.BytesIO(record_of(3500.0).encode()), "/runs/good/containers/ta-long.json")
    for run in ("bad", "worse"):
        here.start(run)[0].get(timeout=60)
    here.cloud.wait_for_all()
    assert here.phases["cancelled"] == "stopped at rung"
    assert here.phases["good"] == "failed"
    ended = here.cloud.server.dict_items(here.cloud.job.claims)["ended/train/good"]
    assert "its share of the budget, $0.50, is spent" in ended["message"]
    assert (here.calls_of("cancelled"), here.calls_of("good")) == (1, 2), "not again and again"


def test_what_a_lost_call_had_to_start_is_started_by_who_attaches(cloud: Callable[..., Cloud], tmp_path: Path) -> None:
    here = HalvedCloud.on(cloud({}), TWO)
    here.start("good")[0].get(timeout=60)
    server, made = here.cloud.server, len(here.cloud.server.calls("FunctionMap"))
    release = server.hold("FunctionMap", nth=2)
    (call,) = here.start("bad")
    server.wait_until(lambda: len(server.calls("FunctionMap")) == made + 2, 60)
    call.cancel(terminate_containers=True)
    server.wait_until(lambda: all(task.ended_at for task in server.tasks()), 60)
    release()
    assert here.phases["good"] == "stopped at rung"

    store, names = (
        Store(tmp_path),
        Names(here.cloud.job.cache_volume, here.cloud.job.runs_volume, here.cloud.job.claims),
    )
    steps = [MirroredStep(StepKind.TRAIN, run, "data", search=SEARCH) for run in TWO]
    mirror, ledger = ModalMirror(store, names), Ledger(store, "sweep")
    ledger.folder.mkdir(parents=True)
    searches = ModalSearches.of(store, names, mirror.claims, steps)
    follow(mirror, steps, ledger, lambda: None, lambda: searches.start("sweep", ledger))
    come_to_rest(here)
    assert [record.key for record in ledger.records()] == ["good", "good"]
    assert observe(store, StepKind.TRAIN, "good").phase is Phase.SUCCEEDED

    # Another search with this run has no entry of it yet, and none of its calls sees that the run has stopped.
    assert not searches.start("sweep", ledger)
    wider = [MirroredStep(StepKind.TRAIN, "bad", "data", search="sweep/wider")]
    others, calls = ModalSearches.of(store, names, mirror.claims, wider), here.calls_of("bad")
    assert others.start("sweep", ledger)
    assert not others.start("sweep", ledger), "not again and again"
    come_to_rest(here)
    assert here.calls_of("bad") == calls + 1
