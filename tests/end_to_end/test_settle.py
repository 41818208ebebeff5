"""`axosweep settle` with the real Axolotl, killed in the middle."""

from __future__ import annotations

import json

import pytest

from tests.end_to_end.axosweep import Axosweep, kill_all, wait_until

pytestmark = pytest.mark.slow

WORDS = ("-m", "lora=r4,r32", "learning_rate=4e-3", "data.limit=200", "max_steps=6", "tracking=disabled")


def finished(axosweep: Axosweep) -> set[str]:
    return {path.parent.name for path in axosweep.store.runs.glob("*/result.json")}


def test_settle_goes_on_after_a_kill_and_trains_nothing_twice(axosweep: Axosweep) -> None:
    swept = axosweep.json(*WORDS)
    sweep, first = swept["sweep"], finished(axosweep)
    shown = axosweep.json("settle", "--plan")
    assert [one["seed"] for one in shown["next"]] == [1, 1, 2, 2]
    assert {one["like"] for one in shown["next"]} == first
    log = axosweep.store.sweeps / sweep / "settle.jsonl"
    assert not log.exists(), "a plan records nothing"

    own = axosweep.folder / "conf" / "lora" / "r4.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package axolotl\nadapter: lora\nlora_r: 4\nlora_alpha: 64\nlora_target_linear: true\n")
    refused = axosweep.run("settle")
    assert refused.returncode == 2
    assert "would be another one now" in refused.stderr
    assert "This has changed since it was trained: lora_alpha (8 then, 64 now), " in refused.stderr
    assert not log.read_text()
    own.unlink()

    launched = axosweep.start("settle", "--max-seeds", "3")
    wait_until(lambda: len(finished(axosweep)) > 2, "a further run that has finished")
    kill_all([launched.pid, *axosweep.processes()])
    launched.communicate()
    before = finished(axosweep)
    assert 2 < len(before) < 6

    settled = axosweep.run("settle", "--json")
    printed = json.loads(settled.stdout)
    assert (printed["ending"], settled.returncode) in (("separated", 0), ("seeds", 3)), settled.stderr
    assert (printed["looks"], len(printed["added"])) == (1, 4)
    rows = {row["key"]: row for row in axosweep.json("compare", sweep)["runs"]}
    assert rows.keys() == {*first, *printed["added"]}, "they are runs of the sweep"
    assert all(rows[key]["attempts"] == 1 for key in before)
    assert sorted(row["params"]["seed"] for row in rows.values()) == [1, 1, 2, 2, 42, 42]
    assert len({row["eval_fingerprint"] for row in rows.values()}) == 1
    assert [json.loads(line)["event"] for line in log.read_text().splitlines()] == ["begun", "round", "look"]

    again = axosweep.run("settle", "--json")
    assert json.loads(again.stdout) == printed
    assert axosweep.run(*WORDS, "--json").returncode == 0
    assert len(axosweep.json("compare", sweep)["runs"]) == 6, "the sweep's own command leaves them in it"
