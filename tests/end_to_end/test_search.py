"""Searches with the real Axolotl, killed in the middle."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.axosweep import UNPADDED, Axosweep, kill_all, wait_until

pytestmark = pytest.mark.slow

SHORT = ("data.limit=200", "max_steps=3", UNPADDED, "tracking=disabled")
COORDINATE = ("-m", "search=coordinate", "learning_rate=1e-3,4e-3", "lora=r4,r8", *SHORT)
TPE = ("-m", "search=tpe", "search.runs=4", "learning_rate=tag(log,interval(1e-4,1e-1))", "lora=r4,r8", *SHORT)


def finished(axosweep: Axosweep) -> set[str]:
    return {path.parent.name for path in axosweep.store.runs.glob("*/result.json")}


def attempts(axosweep: Axosweep) -> dict[str, int]:
    """The losses of the finished runs."""
    return {key: len(list((axosweep.store.runs / key).glob("attempt-*"))) for key in finished(axosweep)}


def killed_after(axosweep: Axosweep, runs: int, *words: str, trainers: bool = False) -> str:
    """What a search had printed when its launcher was killed, or all of its processes."""
    launched = axosweep.start(*words)
    wait_until(lambda: len(finished(axosweep)) >= runs, f"{runs} finished runs")
    kill_all([launched.pid, *(axosweep.processes() if trainers else ())])
    return launched.communicate()[0]


def test_a_search_that_is_killed_twice_goes_on_and_trains_nothing_twice(axosweep: Axosweep) -> None:
    printed = killed_after(axosweep, 1, *COORDINATE, trainers=True)
    assert "so this command has to stay alive" in printed
    assert "round 1  2 runs: learning_rate at lora=r4" in printed
    before = attempts(axosweep)
    (sweep,) = [path.parent.name for path in axosweep.store.sweeps.glob("*/plan.json")]
    assert "search=coordinate is not over" in axosweep.run("status", sweep).stderr
    killed_after(axosweep, 3, *COORDINATE)
    assert before.items() <= attempts(axosweep).items()
    before = attempts(axosweep)

    done = axosweep.run(*COORDINATE, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["key"]: row for row in json.loads(done.stdout)["runs"]}
    assert rows.keys() == finished(axosweep)
    assert before.items() <= attempts(axosweep).items()
    assert {row["params"]["lora_r"] for row in rows.values()} == {4, 8}
    assert "The search is over: 4 runs; best: learning_rate=" in done.stderr
    planned = axosweep.json("plan", *COORDINATE)
    assert (planned["sweep"], planned["further"]) == (sweep, 0)
    assert "search=coordinate is not over" not in axosweep.run("status", sweep).stderr


def test_points_that_were_drawn_before_a_kill_are_run_and_not_drawn_again(axosweep: Axosweep) -> None:
    planned = axosweep.json("plan", *TPE)
    killed_after(axosweep, 1, *TPE)
    before = finished(axosweep)
    assert before < {run["key"] for run in planned["runs"]} or len(planned["runs"]) == 1
    done = axosweep.run(*TPE, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["key"]: row for row in json.loads(done.stdout)["runs"]}
    assert len(rows) == 4
    assert rows.keys() == finished(axosweep)
    assert {run["key"] for run in planned["runs"]} <= rows.keys()
    assert all(rows[key]["attempts"] == 1 for key in before)
    assert planned["further"] == 4 - len(planned["runs"])
