"""One run whose call Modal delivers to two containers on the local Modal, both alive: the run has one result, and
nothing changes it. The tests' own worker trains in place of Axolotl, in no time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import StepFolder
from tests.modal_app.cloud import DATA, LAST, STEP, Cloud, clouds, outcome_of, undisturbed
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cloud]]:
    with clouds(monkeypatch) as start:
        yield start


def published(folder: StepFolder) -> dict[str, tuple[int, int, bytes]]:
    """The files of a finished run, without those of attempts: each one's time, inode and content."""
    files = [path for path in folder.path.rglob("*") if path.is_file() and "attempt-" not in str(path)]
    files = [path for path in files if path.parent.name != "containers" and path.name != "lock"]
    return {
        path.relative_to(folder.path).as_posix(): (stat.st_mtime_ns, stat.st_ino, path.read_bytes())
        for path in files
        if (stat := path.stat())
    }


def is_finished(here: Cloud, attempt: int) -> None:
    """One complete result, from that attempt, and no draft left on the Volume."""
    folder = here.runs.folder(STEP.kind, STEP.key)
    outcome = outcome_of(folder.attempt(attempt))
    assert outcome is not None
    assert folder.done.read_text() == folder.attempt(attempt).result.read_text()
    assert here.losses == undisturbed()
    assert (folder.model / f"checkpoint-{LAST}" / "complete.json").exists()
    assert not any(path.is_symlink() for path in folder.model.iterdir())


def start_second(here: Cloud, call: Any) -> str:
    """Deliver the call once more; returns the container, once it has begun an attempt."""
    here.server.redeliver(call.object_id)
    before = len(here.attempts)
    here.server.wait_until(lambda: len(here.attempts) > before, 30)
    return here.server.tasks_of(call.object_id)[-1].id


def test_the_first_finishes_and_the_second_is_killed_half_way(cloud: Callable[..., Cloud]) -> None:
    here = cloud({"2": "idle@15"})
    release = here.server.hold("VolumeCommit", nth=2, container=1)  # the first one's complete draft
    call = here.start()
    here.server.wait_until(lambda: len(here.attempts) == 1)
    second = start_second(here, call)
    here.wait_for_training(2)
    release()
    assert call.get(timeout=60)["status"] == "succeeded"
    is_finished(here, 1)
    before = published(here.runs.folder(STEP.kind, STEP.key))
    here.server.kill(second)
    here.server.wait_until(lambda: all(task.ended_at for task in here.server.tasks()))
    assert published(here.runs.folder(STEP.kind, STEP.key)) == before
    assert here.outcomes == ["succeeded", ""]


def test_the_second_finishes_first(cloud: Callable[..., Cloud]) -> None:
    here = cloud({"1": "idle@3"}, save_steps=1)
    release = here.server.hold("DictContains", nth=2, container=1)  # it looks whether there is another attempt
    call = here.start()
    here.wait_for_training(1)
    start_second(here, call)
    assert call.get(timeout=60)["status"] == "succeeded"
    is_finished(here, 2)
    before = published(here.runs.folder(STEP.kind, STEP.key))
    release()
    here.server.wait_until(lambda: all(task.ended_at for task in here.server.tasks()))
    assert published(here.runs.folder(STEP.kind, STEP.key)) == before
    assert here.outcomes == ["stopped", "succeeded"]


def test_two_that_live_leave_the_run_to_one_new_call(cloud: Callable[..., Cloud]) -> None:
    """Otherwise, both would be paid for, or the answer of one would end the call while the other trains."""
    here = cloud({"1": "idle@3", "2": "idle@5"}, save_steps=1)
    # Each looks for another attempt.
    first, second = (here.server.hold("DictContains", nth=2, container=number) for number in (1, 2))
    call = here.start()
    here.server.wait_until(lambda: len(here.attempts) == 1)
    start_second(here, call)
    first()
    assert call.get(timeout=60)["status"] == "continued"
    here.server.wait_until(lambda: len(here.attempts) == 3)
    second()
    assert [one.status for one in here.wait_for_all()] == ["success", "success"]
    here.server.wait_until(lambda: all(task.ended_at for task in here.server.tasks()), 60)
    assert here.outcomes == ["stopped", "stopped", "succeeded"]
    assert here.losses == undisturbed()


def test_both_finish_and_the_result_is_of_the_one_that_said_so_first(cloud: Callable[..., Cloud]) -> None:
    here = cloud({}, idle_s=0.2)
    release = here.server.hold("VolumeCommit", nth=3, container=1)  # two Volumes: the draft, complete
    call = here.start(name="preprocess/data", function="preprocess", awaited=True)
    folder = StepFolder(Path(), Path())

    def began() -> bool:
        nonlocal folder
        folder = type(here.runs)(here.server.volume_tree(here.job.cache_volume)).folder(DATA.kind, DATA.key)
        return bool(folder.attempts())

    here.server.wait_until(began)
    here.server.redeliver(call.object_id)
    assert call.get(timeout=60)["status"] == "succeeded"
    before = folder.done.read_bytes()
    release()
    here.server.wait_until(lambda: all(task.ended_at for task in here.server.tasks_of(call.object_id)))
    assert folder.done.read_bytes() == before
    assert b'"attempt": 2' in before
