"""Which steps a mirror takes for live when entries of the Dict have vanished, and what it records about refused
ones."""

from __future__ import annotations

import io
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import modal
import pytest
from grpclib import Status

from modal_app.cloud.claims import enqueue_behind
from modal_app.cloud.job import Job
from modal_app.cloud.meter import Meter, Reservation
from modal_app.store.layout import SUBMISSION, Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import Outcome, OutcomeStatus, StepKind
from runner.executors.modal_mirror import ModalMirror, look_once
from runner.executors.modal_submission import MirroredStep, Names
from runner.executors.modal_verbs import cancel, has_ended
from runner.store.ledger import Event, Ledger, Record, SweepRun
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import client_of

STEP = MirroredStep(StepKind.TRAIN, "run", "data")
NAMES = Names("cache", "runs", "claims")


@dataclass(frozen=True)
class Place:
    """A Modal whose calls wait for a container that never starts, and a store that mirrors it."""

    server: ModalServer
    client: modal.Client
    train: modal.Function[..., Any, Any]
    claims: modal.Dict
    mirror: ModalMirror
    ledger: Ledger

    def put(self, path: str, text: str) -> None:
        with modal.Volume.from_name("runs", client=self.client).batch_upload(force=True) as batch:
            batch.put_file(io.BytesIO(text.encode()), path)

    def look(self) -> bool:
        """Whether everything has ended."""
        return look_once(self.mirror, [STEP], self.ledger)

    def shows(self, phase: Phase) -> bool:
        return observe(self.mirror.store, STEP.kind, STEP.key).phase is phase


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    with ModalServer(Settings(max_containers=0)) as server, client_of(server, monkeypatch) as client:
        app = modal.App("app", include_source=False)
        app.function(name="train", serialized=True)(lambda text: None)
        app.deploy(client=client)
        for name in ("cache", "runs"):
            modal.Volume.from_name(name, create_if_missing=True, version=2, client=client).hydrate()
        store = Store(tmp_path / "modal")
        ledger = Ledger(store, "sweep")
        ledger.folder.mkdir(parents=True)
        claims = modal.Dict.from_name("claims", create_if_missing=True, client=client)
        train = modal.Function.from_name("app", "train", client=client)
        yield Place(server, client, train, claims, ModalMirror(store, NAMES), ledger)


def begin(place: Place, tmp_path: Path) -> modal.FunctionCall[Any]:
    """A run that a container has begun, whose claim has vanished."""
    call = place.train.spawn("")
    put_container_record(place, tmp_path, call)
    place.put("/runs/run/attempt-1/container.json", json.dumps({"call": call.object_id, "at": 1.0}))
    return call


def put_container_record(place: Place, tmp_path: Path, call: modal.FunctionCall[Any], *, ended: bool = False) -> None:
    """What the run's container records of itself."""
    reserved = Reservation(1.0, 1.0)
    meter = Meter(tmp_path / "containers", step=STEP.name, call=call.object_id, attempt=1, reserved=reserved)
    if ended:
        meter.end()
    (record,) = (tmp_path / "containers").iterdir()
    place.put("/runs/run/containers/ta-1.json", record.read_text())


def test_a_run_whose_claim_has_vanished_goes_on_as_long_as_the_call_of_its_container_lives(
    place: Place, tmp_path: Path
) -> None:
    call = begin(place, tmp_path)
    assert not place.look()
    assert place.shows(Phase.RUNNING)
    call.cancel()
    assert place.look()
    assert place.shows(Phase.LOST)


def test_a_claim_that_vanishes_while_a_sweep_is_followed_changes_nothing(place: Place, tmp_path: Path) -> None:
    call = begin(place, tmp_path)
    place.claims.put(STEP.name, {"call": call.object_id, "sweep": "sweep"})
    assert not place.look()
    place.claims.clear()
    assert not place.look()
    assert place.shows(Phase.RUNNING)


def test_a_call_that_waits_for_its_container_is_known_from_the_ledger(place: Place) -> None:
    call = place.train.spawn("")
    facts = {"call": call.object_id}
    place.ledger.append(Record(Event.STARTED, STEP.kind, STEP.key, message=STEP.name, facts=facts))
    assert not place.look()
    assert place.mirror.claims_of([STEP], {STEP.name: [call.object_id]})[STEP.name]["call"] == call.object_id
    call.cancel()
    assert place.look()


def test_a_run_that_modal_refused_to_start_is_shown_with_the_cause(place: Place) -> None:
    place.claims.put(f"refused/{STEP.name}", "Modal did not start it: the spend limit is reached")
    assert place.look()
    (record,) = place.ledger.records()
    assert record.message == (
        "Modal did not start it: the spend limit is reached; run the same command again to start it"
    )


def test_a_connection_that_is_lost_while_a_sweep_is_followed_ends_nothing(place: Place, tmp_path: Path) -> None:
    call = begin(place, tmp_path)
    place.claims.put(STEP.name, {"call": call.object_id, "sweep": "sweep"})
    place.server.lose_connection("DictContents")
    assert not place.look()
    for nth in range(1, 5):  # the client tries four times
        place.server.lose_connection("FunctionGetOutputs", nth=nth)
    assert not place.look()
    assert not place.look()
    assert place.shows(Phase.RUNNING)


def test_a_cancel_that_modal_refuses_for_one_run_ends_the_others(place: Place) -> None:
    """Otherwise, all GPUs that come after it go on."""
    steps = [replace(STEP, key=key) for key in ("one", "two", "three")]
    for step in steps:
        place.claims.put(step.name, {"call": place.train.spawn("").object_id, "sweep": "sweep"})
    place.server.fail("FunctionCallCancel", status=Status.RESOURCE_EXHAUSTED)
    with pytest.raises(modal.exception.ResourceExhaustedError):
        place.mirror.cancel(steps, "sweep")
    states = Counter(call.status for call in place.server.function_calls())
    assert states == {"terminated": 2, "pending": 1}
    assert len(place.mirror.cancel(steps, "sweep")) == 1


@pytest.mark.parametrize(("waits", "ends"), [("sweep", True), ("sweep/merge", True), ("other", False)])
def test_a_cancel_leaves_a_download_that_another_sweep_waits_for_with_the_same_dataset(
    place: Place, waits: str, ends: bool
) -> None:
    data = MirroredStep(StepKind.PREPROCESS, "data", "data", fetches=("fetch/model",))
    call = place.train.spawn("").object_id
    place.claims.put("fetch/model", {"call": call, "sweep": "sweep"})
    waiting = Job(data.name, waits, "app", "preprocess", "claims", "cache", "runs", awaited=True)
    enqueue_behind(place.claims, call, "fetch/model", [waiting])
    assert place.mirror.cancel([data, STEP], "sweep") == ({"fetch/model"} if ends else set())


def test_a_cancel_copies_the_outcome_that_a_container_saves_during_the_copy(place: Place, tmp_path: Path) -> None:
    """The run's folder is listed before the container saves, and the container's record is read after that."""
    call = begin(place, tmp_path)
    place.claims.put(STEP.name, {"call": call.object_id, "sweep": "sweep"})
    submission = {"names": asdict(NAMES), "steps": [asdict(STEP)]}
    (place.ledger.folder / SUBMISSION).write_text(json.dumps(submission))
    release = place.server.hold("VolumeGetFile2")
    said: list[str] = []
    run = SweepRun(STEP.key, STEP.data_key, ())
    with ThreadPoolExecutor(1) as pool:
        cancelled = pool.submit(cancel, place.mirror.store, [run], "sweep", said.append)
        try:
            place.server.wait_until(lambda: place.server.calls("VolumeGetFile2"))
            outcome = Outcome(OutcomeStatus.STOPPED, 1, 1.0, 2.0)
            place.put("/runs/run/attempt-1/result.json", outcome.to_json())
            put_container_record(place, tmp_path, call, ended=True)
        finally:
            release()
        assert cancelled.result(60) == 1
    assert not said, "the first look has seen the container's end"
    assert place.shows(Phase.STOPPED)


def test_the_next_look_comes_when_the_last_call_has_ended(place: Place) -> None:
    """Not seconds later, since the user waits for the end of the sweep."""
    call = place.train.spawn("")
    place.claims.put(STEP.name, {"call": call.object_id, "sweep": "sweep"})
    assert not place.look()
    threading.Timer(0.2, call.cancel).start()
    began = time.monotonic()
    place.mirror.wait(60)
    assert time.monotonic() - began < 30
    assert place.look()


def test_a_run_that_waits_for_its_container_is_listed_once(place: Place) -> None:
    """There is nothing new to copy until a container has begun it."""
    call = place.train.spawn("")
    place.claims.put(STEP.name, {"call": call.object_id, "sweep": "sweep"})
    place.put("/runs/run/run.json", "{}")
    listed = []
    for begun in (False, False, True):
        if begun:
            place.claims.put(f"attempt/1/{STEP.name}", {"call": call.object_id})
        place.server.forget_calls()
        assert not place.look()
        listed.append(sum('path: "runs/run"' in str(one.request) for one in place.server.calls("VolumeListFiles2")))
    assert listed == [1, 0, 1]


def test_a_cancel_waits_for_a_container_only_until_its_last_record(tmp_path: Path) -> None:
    """A container that has ended writes nothing more, whatever files it has left."""
    store = Store(tmp_path)
    folder = store.folder(STEP.kind, STEP.key)
    folder.attempt(1).path.mkdir(parents=True)
    assert not has_ended(store, STEP), "it may be saving"
    meter = Meter(folder.containers, step=STEP.name, call="fc-1", attempt=1, reserved=Reservation(1.0, 1.0))
    assert not has_ended(store, STEP)
    meter.end()
    assert has_ended(store, STEP)
    folder.attempt(2).path.mkdir()
    assert not has_ended(store, STEP), "the record is of an earlier attempt"
