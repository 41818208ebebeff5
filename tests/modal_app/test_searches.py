"""Rungs on the local Modal: runs that stop, go on and come to grief there, with no process but their calls. Not
Axolotl: the worker of the tests that trains in no time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from tests.modal_app.cloud import LAST, Cloud, clouds
from tests.modal_app.halved_cloud import RUNG, HalvedCloud
from tests.modal_server.fixture import needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

TWELVE = {f"r{number:02}": 1.0 + 0.1 * (5 * number % 12) for number in range(12)}
"""Good and bad ones come in turn."""


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Cloud]]:
    with clouds(monkeypatch) as start:
        yield start


def test_twelve_runs_that_nobody_watches_are_halved_to_the_end(cloud: Callable[..., Cloud]) -> None:
    here = HalvedCloud.on(cloud({}), TWELVE, fractions=(0.2, 0.6), eta=3)
    here.start()
    calls = here.cloud.wait_for_all()
    assert {call.status for call in calls} == {"success"}
    assert here.all_have_gone_that_should()
    phases = Counter(here.phases.values())
    assert phases["succeeded"] + phases["stopped at rung"] == 12
    assert phases["stopped at rung"] >= 5
    assert here.phases["r00"] == "succeeded", "it is the best one"
    for run, phase in here.phases.items():
        steps = here.steps_trained(run)
        assert steps == list(range(1, len(steps) + 1)), "no step twice"
        assert steps[-1] == LAST if phase == "succeeded" else steps[-1] in (RUNG, 3 * RUNG)
    stops = sum(name.startswith("stop/") for name in here.entries)
    started = len(calls) - 12
    stopped = phases["stopped at rung"]
    assert started == stops - stopped, "a call for each promotion, and none more"
    # Nothing is rented any more.
    here.cloud.server.wait_until(lambda: all(task.ended_at for task in here.cloud.server.tasks()))
