"""`axosweep resume` with the real Axolotl: a run that its search has stopped is trained to its end, as a run of that
search."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.axosweep import Axosweep

pytestmark = pytest.mark.slow

WORDS = ("-m", "lora=r4", "learning_rate=1e-5,1e-2", "data.limit=100", "max_steps=5", "tracking=disabled")
RUNGS = ("search.rungs=[0.6,0.8]", "search.audit=false")


def test_a_run_at_a_rung_is_resumed_to_its_end_and_stops_at_no_further_rung(axosweep: Axosweep) -> None:
    searched = axosweep.run(*WORDS, *RUNGS)
    assert searched.returncode == 0, searched.stderr
    assert "1 of 2 runs has stopped at a rung" in searched.stdout
    sweep = axosweep.json("compare")
    best, stopped = sweep["runs"]
    assert (best["status"], stopped["status"], stopped["rung"]) == ("succeeded", "stopped at rung", 1)
    assert [one["place"] for one in (best["rungs"][0], stopped["rungs"][0])] == [1, 2]
    assert stopped["rungs"][0]["loss"] > best["rungs"][0]["loss"]
    (search,) = sweep["searches"]
    assert (search["steps"], search["steps_saved"]) == (10, 2)

    planned = axosweep.json("plan", *WORDS, *RUNGS)
    assert {one["key"]: one["at_rung"] for one in planned["runs"]} == {best["key"]: None, stopped["key"]: 1}
    assert planned["cost"]["halved"]["share"] == 0, "it goes on only if it is among the best now"

    resumed = axosweep.run("resume", stopped["key"][:8], "--json")
    assert resumed.returncode == 0, resumed.stderr
    printed = json.loads(resumed.stdout)
    assert printed["sweep"] == sweep["sweep"]
    (row,) = [row for row in printed["runs"] if row["key"] == stopped["key"]]
    assert (row["status"], row["step"], row["attempts"], row["can_win"]) == ("succeeded", 5, 2, True)
    assert (row["record"]["resumed_from"], row["rungs"][-1]["why"], len(row["rungs"])) == (3, "asked", 1)
    refused = axosweep.run("resume", stopped["key"])
    assert refused.returncode == 2
    assert "since it has finished" in refused.stderr
