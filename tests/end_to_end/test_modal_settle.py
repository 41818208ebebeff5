"""Settling a sweep on the local Modal, with a budget and a client that is killed. The worker in the containers does
nothing, and leaves invented losses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.store.ledger import Event
from tests.end_to_end.axosweep import kill
from tests.end_to_end.on_modal import attempts, local_modal, machine, recorded
from tests.modal_server.fixture import needs_mounts, noop_settings
from tests.runner.settling import losses_of

pytestmark = [pytest.mark.slow, needs_mounts]

RATES = {0.001: 1.0, 0.002: 1.3, 0.004: 2.0}


def test_settle_on_modal_keeps_to_its_budget_and_goes_on_after_a_kill(tmp_path: Path) -> None:
    losses = tmp_path / "losses"
    losses.mkdir()
    for rate, loss in RATES.items():
        for seed in (1, 2, 3, 42):
            losses_of(loss, rate, seed).write(losses / f"{rate}-{seed}.npz")
    with local_modal(noop_settings(train_s=1.0, losses=losses)) as server:
        here = machine(server, tmp_path / "here")
        words = ("-m", f"learning_rate={','.join(map(str, RATES))}", "tracking=disabled", "executor=modal")
        sweep = here.json(*words)["sweep"]

        poor = here.run("settle", "budget=0.00001", "--json")
        assert poor.returncode == 3, poor.stderr
        assert json.loads(poor.stdout)["ending"] == "budget"
        assert len(server.function_calls("train")) == 3

        before = recorded(here, Event.STARTED)
        client = here.start("settle", "budget=5")
        # A client that is killed before it has recorded a call would call again, and that call would end at once.
        server.wait_until(lambda: recorded(here, Event.STARTED) == before + 4, 60)
        kill(client.pid)
        client.communicate()
        settled = here.json("settle", "budget=5")
        assert (settled["ending"], settled["looks"], len(settled["added"])) == ("separated", 1, 4)
        assert 0 < settled["dollars"] < 5
        assert len(server.function_calls("train")) == 7, "none was called twice"
        assert set(attempts(server, here)) == {1}
        assert len(here.json("compare", sweep)["runs"]) == 7

        elsewhere = machine(server, tmp_path / "elsewhere")
        seen = [row["status"] for row in elsewhere.json("attach", sweep)["runs"]]
        assert seen == ["succeeded"] * 7, "the Volume has the steps of all rounds, and those of the sweep itself"
