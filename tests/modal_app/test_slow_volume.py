"""Runs on a local Modal with slow Volumes: no step waits for one, and a partly copied checkpoint never counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median

import pytest

from modal_app.store import checkpoints
from modal_app.store.layout import Attempt
from tests.modal_app.cloud import STEP, Cloud, clouds, undisturbed
from tests.modal_server.fixture import needs_mounts
from tests.modal_server.slow_volume import needs_compiler, slow_volumes

pytestmark = [pytest.mark.slow, needs_mounts, needs_compiler]

SAVED = 1_000_000
EVERY = 10


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cloud]]:
    with clouds(monkeypatch) as start:
        yield start


def seconds_of_ten(here: Cloud) -> list[float]:
    """How long ten steps took, one of which saves, each time."""
    lines = here.runs.folder(STEP.kind, STEP.key).metrics.read_text().splitlines()
    ends = [line["at"] for line in map(json.loads, lines)][EVERY - 1 :: EVERY]
    return [later - earlier for earlier, later in pairwise(ends)]


def test_a_slow_volume_delays_no_step_of_a_run_that_saves_every_ten(cloud: Callable[..., Cloud]) -> None:
    """Both run at the same time, so that other work of this machine affects both."""
    of_one = {"steps": 121, "step_s": 0.05, "save_steps": EVERY, "bytes_saved": SAVED}
    fast = cloud({}, **of_one)
    slow = cloud({}, **of_one, **slow_volumes(bytes_per_s=4 * SAVED))
    for call in [fast.start(), slow.start()]:
        assert call.get(timeout=90)["status"] == "succeeded"
    assert median(seconds_of_ten(slow)) < 1.05 * median(seconds_of_ten(fast))


def test_a_preemption_in_the_middle_of_a_copy_goes_on_from_the_checkpoint_before(cloud: Callable[..., Cloud]) -> None:
    here = cloud({}, steps=30, step_s=0.1, save_steps=EVERY, bytes_saved=SAVED, grace_s=0.1, **slow_volumes(SAVED))

    def copied() -> int:
        return max((checkpoints.newest_step(_draft(attempt)) for attempt in here.attempts), default=0)

    def is_copying_the_next() -> bool:
        partial = "t/*/volumes/*/runs/run/attempt-1/copying/checkpoint-*/weights"
        return copied() > 0 and any(True for _ in here.server.folder.glob(partial))

    call = here.start()
    here.server.wait_until(is_copying_the_next, 30)
    before = copied()
    here.server.preempt(here.server.tasks_of(call.object_id)[-1].id)
    assert call.get(timeout=60)["status"] == "succeeded"
    lines = map(json.loads, here.runs.folder(STEP.kind, STEP.key).metrics.read_text().splitlines())
    assert next(line["step"] for line in lines if line["attempt"] == 2) == before + 1
    assert here.losses == undisturbed(30)


def _draft(attempt: Attempt) -> Path:
    return attempt.draft / "model"
