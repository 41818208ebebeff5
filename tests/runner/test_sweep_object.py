"""`tracking.sweep_object=true`: one sweep object of W&B for a sweep's runs, created once, by the unmodified SDK."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.process import tracking
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.types import Plan, TrackingChoice
from runner.wandb.sweep_object import FILE, with_sweep_objects
from tests.runner.builders import plan, run
from tests.wandb_server import WandbServer, serve_wandb
from tests.wandb_server.sdk import LoggedRun, log_runs


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with serve_wandb() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        yield server
        assert not server.world.unknown


def asked(store: Store, *rates: float, wanted: bool = True, projects: tuple[str, ...] = ("p",)) -> Plan:
    choices = [TrackingChoice("online", project, sweep_object=wanted) for project in projects]
    count = len(choices)
    return plan(
        [run({"learning_rate": rate}, tracking=choices[at % count]) for at, rate in enumerate(rates)], store, "rates"
    )


def ids(planned: Plan) -> list[str]:
    return [one.step.tracking.sweep_object for one in planned.runs]


@pytest.mark.slow
def test_the_runs_of_a_sweep_are_attached_to_one_object_that_is_made_once(
    store: Store, server: WandbServer, tmp_path: Path
) -> None:
    before = asked(store, 1e-3, 3e-3)
    planned = with_sweep_objects(before, store)
    (made,) = server.world.sweeps
    assert ids(planned) == [made.id] * 2
    assert made.project == "p"
    assert made.config == {
        "name": planned.sweep,
        "method": "grid",
        "parameters": {"learning_rate": {"values": [1e-3, 3e-3]}},
    }
    assert [one.run.key for one in planned.runs] == [one.run.key for one in before.runs], "it is in no key"
    assert with_sweep_objects(before, store) == planned, "the same line again"
    assert len(server.world.sweeps) == 1

    step = planned.runs[0].step
    folder = store.folder(StepKind.TRAIN, step.key)
    folder.path.mkdir(parents=True)
    environment = {**os.environ, **server.environment(), **tracking.variables(step, folder)}
    rows = [{"train/global_step": 1, "train/loss": 1.0}]
    log_runs([LoggedRun({"project": "of-the-trainer", "name": "of the trainer"}, rows)], environment, tmp_path)
    kept = json.loads(folder.tracking.read_text())
    attached = server.runs("p")[kept["id"]]
    assert (attached.sweep, attached.group, attached.state) == (made.id, planned.sweep, "finished")


@pytest.mark.slow
def test_each_project_of_a_sweep_has_an_object_of_its_own(store: Store, server: WandbServer) -> None:
    planned = with_sweep_objects(asked(store, 1e-3, 2e-3, 3e-3, projects=("p", "q")), store)
    assert [(one.id, one.project) for one in server.world.sweeps] == [("sweep1", "p"), ("sweep2", "q")]
    assert ids(planned) == ["sweep1", "sweep2", "sweep1"]


def test_no_object_is_created_without_a_request_or_for_a_single_run(store: Store, server: WandbServer) -> None:
    for planned in (asked(store, 1e-3, 3e-3, wanted=False), asked(store, 1e-3)):
        assert with_sweep_objects(planned, store) == planned
    assert not server.world.asked


def test_without_a_key_nothing_is_made_and_the_way_out_is_said(
    store: Store, server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    planned = asked(store, 1e-3, 3e-3)
    with pytest.raises(SweepError, match=r"needs a key.*wandb login.*Nothing was started"):
        with_sweep_objects(planned, store)
    assert not (store.sweeps / planned.sweep / FILE).exists()


@pytest.mark.slow
def test_a_key_that_wandb_does_not_take_ends_the_launch(
    store: Store, server: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "wrong" + "0" * 40)
    with pytest.raises(SweepError, match="Is the key right"):
        with_sweep_objects(asked(store, 1e-3, 3e-3), store)
    assert not server.world.sweeps
