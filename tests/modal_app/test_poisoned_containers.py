"""Runs that leave something in their container, or end badly, on the local Modal: their container takes no further run,
and every other run trains as in a fresh one. The tests' own worker trains in place of Axolotl, in no time."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modal
import pytest

from modal_app.cloud.job import steps_file
from modal_app.store.layout import STEPS, StepFolder
from modal_app.store.read_json import read_json
from modal_app.store.step import FailureReason, Step, StepKind
from tests.modal_app.cloud import Cloud, clouds, outcome_of, undisturbed
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

REASONS = {
    "child": "still running: process ",
    "daemon": "still running: process ",
    "file": f"files that were created, changed or removed: {Path('/', 'tmp', 'left')}",
    "holder": "its call ended with VolumeError",
    "limit": "of the container's own process: RLIMIT_NPROC",
    "gpu": "GPU 0: 70000 MiB in use, 4 MiB before",
    "killed": "its call ended with WorkerDied",
    "memory": "its call ended as failed",
    "preempted": "its call ended with KeyboardInterrupt",
    "container": "",
}
"""What is done to a container, and its recorded reason for taking no further run: a killed one records none."""
CLEAN = ("harmless", "linger", "clean-1", "clean-2", "clean-3", "clean-4")
CONTAINERS = 4
NVIDIA_SMI = Path(__file__).with_name("nvidia_smi_stand_in")


@dataclass(frozen=True)
class Runs:
    """Runs on one local Modal, with fewer containers than runs."""

    cloud: Cloud

    def folder(self, run: str) -> StepFolder:
        return self.cloud.runs.folder(StepKind.TRAIN, run)

    def losses(self, run: str) -> dict[int, float]:
        lines = map(json.loads, self.folder(run).metrics.read_text().splitlines())
        return {line["step"]: line["loss"] for line in lines}

    @property
    def containers(self) -> dict[str, list[str]]:
        """Container -> the attempts in it, in order, as `run/number`."""
        made: dict[str, list[tuple[float, str]]] = {}
        for run in (*REASONS, *CLEAN):
            for attempt in self.folder(run).attempts():
                about = read_json(attempt.container)
                made.setdefault(about["container"], []).append((about["at"], f"{run}/{attempt.number}"))
        return {container: [name for _, name in sorted(attempts)] for container, attempts in made.items()}

    def container_of(self, run: str) -> str:
        """The container of its first attempt."""
        return next(container for container, attempts in self.containers.items() if f"{run}/1" in attempts)

    def start(self, *runs: str, containers: int) -> list[modal.FunctionCall[Any]]:
        """Put the plan of these runs on the Volume, and call them in order. Runs with the same number of containers
        share a pool."""
        steps = {f"train/{run}": Step(StepKind.TRAIN, run, {}, "data") for run in runs}
        job, client = self.cloud.job, self.cloud.client
        sweep = "-".join(runs)
        with modal.Volume.from_name(job.runs_volume, client=client).batch_upload(force=True) as batch:
            batch.put_file(io.BytesIO(steps_file(steps, {}).encode()), f"/sweeps/{sweep}/{STEPS}")
        options = {"max_containers": containers, "scaledown_window": 20}
        return [self.cloud.start(name=name, sweep=sweep, options=options) for name in steps]

    def run(self, *runs: str, containers: int) -> list[list[str]]:
        """The containers that got each run."""
        calls = self.start(*runs, containers=containers)
        assert [call.get(timeout=60)["status"] for call in calls] == ["succeeded"] * len(runs)
        return [[task.id for task in self.cloud.server.tasks_of(call.object_id)] for call in calls]

    def why_ended(self, run: str, container: str) -> str:
        """Why the container ended, according to its record."""
        return str(read_json(self.folder(run).containers / f"{container}.json")["ended_because"])


@pytest.fixture(scope="module")
def runs() -> Iterator[Runs]:
    doom = {f"{run}/1": f"{run}@5" for run in (*REASONS, "harmless", "linger")} | {"unstopped/1": "file@5"}
    doom |= {f"{run}/1": "idle@5" for run in ("preempted", "twice")}
    with pytest.MonkeyPatch.context() as patch, clouds(patch) as cloud:
        here = cloud(doom, reused=True, files={"/usr/local/bin/nvidia-smi": NVIDIA_SMI})
        runs = Runs(here)
        others = [run for run in REASONS if run != "preempted"]
        calls = runs.start("preempted", CLEAN[0], *others, *CLEAN[1:], containers=CONTAINERS)
        here.wait_for_training(1, "preempted")
        here.server.preempt(here.server.tasks_of(calls[0].object_id)[0].id)
        here.wait_for_all()
        yield runs


@pytest.mark.parametrize("run", REASONS)
def test_a_container_in_which_a_run_has_left_something_or_failed_takes_no_further_one(runs: Runs, run: str) -> None:
    container = runs.container_of(run)
    assert runs.containers[container][-1] == f"{run}/1"
    why = runs.why_ended(run, container)
    assert why.startswith(REASONS[run])
    assert bool(why) is bool(REASONS[run])


@pytest.mark.parametrize("run", [run for run in (*REASONS, *CLEAN) if run != "memory"])
def test_every_run_has_the_losses_of_one_in_a_fresh_container(runs: Runs, run: str) -> None:
    assert runs.losses(run) == undisturbed()


def test_a_run_that_was_out_of_memory_has_failed_and_is_not_tried_again(runs: Runs) -> None:
    (attempt,) = runs.folder("memory").attempts()
    outcome = outcome_of(attempt)
    assert outcome is not None
    assert outcome.reason is FailureReason.OOM


def test_a_container_goes_on_after_a_run_that_has_left_nothing(runs: Runs) -> None:
    assert runs.containers[runs.container_of("harmless")][-1] != "harmless/1"
    assert runs.why_ended("linger", runs.container_of("linger")) == "", "what it had left was gone in a moment"


def test_a_container_whose_end_modal_did_not_hear_of_refuses_its_next_call_which_another_one_does(runs: Runs) -> None:
    runs.cloud.server.fail("ContainerStop")
    first, second = runs.run("unstopped", "after-unstopped", containers=1)
    assert len(first) == 1
    assert len(second) == 2, "it was given to the same container, which refused it"
    assert second[0] == first[0] != second[1]
    (attempt,) = runs.folder("after-unstopped").attempts()
    assert read_json(attempt.container)["container"] == second[1], "a refusal is no attempt"
    assert runs.losses("after-unstopped") == undisturbed()


def test_a_container_that_cannot_reload_the_cache_does_its_first_call_only(runs: Runs) -> None:
    cache, server = runs.cloud.job.cache_volume, runs.cloud.server

    def refuse(container: str) -> None:
        for nth in range(1, 5):  # in each of its tries
            server.fail_reload(cache, nth=nth, caller=container)

    ((second,),) = runs.run("stale-2", containers=2)
    refuse(second)
    (later,) = runs.start("stale-3", containers=2)
    known = {task.id for task in server.tasks()}
    (first,) = runs.start("stale-1", containers=5)
    (alone,) = server.wait_until(lambda: {task.id for task in server.tasks()} - known)
    refuse(alone)
    assert [call.get(timeout=60)["status"] for call in (first, later)] == ["succeeded"] * 2
    assert "could not be reloaded" in runs.why_ended("stale-1", alone)
    assert "ContainerOver" in runs.why_ended("stale-2", second), "in the record of the last run that it did"
    assert [task.id == second for task in server.tasks_of(later.object_id)] == [True, False]
    assert len(runs.folder("stale-3").attempts()) == 1, "a refusal is no attempt"


def test_a_run_that_is_given_to_several_containers_has_one_result_and_the_one_that_was_behind_ends(runs: Runs) -> None:
    server = runs.cloud.server
    release = server.hold("DictContains", nth=2, container=1)  # it looks whether there is another attempt
    (call,) = runs.start("twice", containers=3)
    runs.cloud.wait_for_training(1, "twice")
    first = server.tasks_of(call.object_id)[0].id
    twin = runs.cloud.start(name="train/twice", sweep="twice", options={"max_containers": 3, "scaledown_window": 20})
    assert twin.get(timeout=60)["status"] == "claimed"
    other = server.tasks_of(twin.object_id)[0].id
    server.redeliver(call.object_id)
    assert call.get(timeout=60)["status"] == "succeeded"
    assert server.tasks_of(call.object_id)[-1].id == other, "which had nothing to do, so it took the call"
    release()
    server.wait_until(lambda: next(task for task in server.tasks() if task.id == first).ended_at, 30)
    assert runs.losses("twice") == undisturbed()
    assert runs.why_ended("twice", first) == "another container works on its job"
    ((third,),) = runs.run("after-twice", containers=3)
    assert third == other
