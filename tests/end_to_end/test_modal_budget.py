"""A budget on the local Modal: a launch above it is refused, and a run that exceeds its share is stopped permanently.
The worker in the containers does nothing, step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.step import Share, Step
from tests.end_to_end.on_modal import RUNS, container_records, local_modal, machine
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

ON_MODAL = ("tracking=disabled", "executor=modal")
ENDLESS = ("max_steps=100000", *ON_MODAL)


def paid_seconds(server: ModalServer, key: str) -> float:
    return sum(float(one["seconds"]) for one in container_records(server, f"runs/{key}"))


def share_of(server: ModalServer, key: str, sweep: str) -> Share:
    path = server.volume_tree(RUNS) / "sweeps" / sweep / "steps.json"
    share = Step.from_json(json.loads(path.read_text())["steps"][f"train/{key}"]).share
    assert share is not None
    return share


def checkpoints(server: ModalServer, key: str) -> list[int]:
    folder = server.volume_tree(RUNS) / "runs" / key
    return sorted({int(path.name.partition("-")[2]) for path in folder.glob("attempt-*/draft/model/checkpoint-*")})


def test_a_plan_above_its_budget_is_refused_and_forced_it_is_stopped_when_its_share_is_spent(tmp_path: Path) -> None:
    with local_modal(noop_settings(train_s=1.1, grace_s=10)) as server:
        here = machine(server, tmp_path / "here")
        assert here.run("max_steps=5", *ON_MODAL).returncode == 0  # the speed is known from here on

        (short,) = here.json("compare")["runs"]
        start = paid_seconds(server, short["key"])  # a slow machine takes longer to begin

        (asked,) = here.json("plan", *ENDLESS)["cost"]["runs"]
        assert asked["basis"] == "1 record"
        dollars_s = asked["dollars"]["high"] / asked["rented_seconds"]["high"]
        first, second = 1.4 * start + 6, 2.8 * start + 12
        budget = f"budget={first * dollars_s:.8f}"
        calls = len(server.function_calls())
        planned, refused = here.run("plan", *ENDLESS, budget), here.run(*ENDLESS, budget)
        asks = here.run(*ENDLESS, "confirm_above=0.0001")
        assert (planned.returncode, refused.returncode, asks.returncode) == (2, 2, 2)
        assert "this may cost" in planned.stderr
        assert "this may cost" in refused.stderr
        assert "for the boot of each attempt" in planned.stdout
        assert "there is no terminal to ask on: add --yes" in asks.stderr
        assert len(server.function_calls()) == calls

        stopped = here.run(*ENDLESS, budget, "--force")
        assert stopped.returncode == 1, stopped.stderr
        told: dict[str, Any] = here.json("compare")
        (row,) = told["runs"]
        share = share_of(server, row["key"], told["sweep"])
        assert share.seconds == pytest.approx(first, abs=0.1)
        assert (row["status"], row["reason"]) == ("failed", "budget")
        assert "its share of the budget, $" in row["message"]
        assert "the same command with a higher budget continues it" in stopped.stdout
        assert row["attempts"] == 1
        assert 0.8 * share.seconds < paid_seconds(server, row["key"]) < share.seconds + 5
        (reached,) = checkpoints(server, row["key"])
        assert reached > 0

        again = here.run(*ENDLESS, budget, "--force")
        assert again.returncode == 1
        assert here.json("compare")["runs"][0]["attempts"] == 1

        raised = here.run(*ENDLESS, f"budget={second * dollars_s:.8f}", "--force")
        assert raised.returncode == 1
        (row,) = here.json("compare")["runs"]
        assert (row["status"], row["reason"], row["attempts"]) == ("failed", "budget", 2)
        assert paid_seconds(server, row["key"]) < second + 5
        assert max(checkpoints(server, row["key"])) > reached
