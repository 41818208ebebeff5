"""A budget on the local Modal: what is above it is refused, and a run that overruns its share is stopped, for good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modal_app.layout import Store
from modal_app.step import Share, Step
from runner import trainer_environment
from tests.end_to_end.axosweep import Axosweep
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET, needs_mounts

pytestmark = [pytest.mark.slow, needs_mounts]

ON_MODAL = ("tracking=disabled", "executor=modal")
ENDLESS = ("max_steps=100000", *ON_MODAL)


def paid_seconds(server: ModalServer, key: str) -> float:
    folder = server.volume_tree("axosweep-runs") / "runs" / key / "containers"
    return sum(json.loads(path.read_text())["seconds"] for path in folder.glob("*.json"))


def share_of(server: ModalServer, key: str, sweep: str) -> Share:
    path = server.volume_tree("axosweep-runs") / "sweeps" / sweep / "steps.json"
    share = Step.from_json(json.loads(path.read_text())["steps"][f"train/{key}"]).share
    assert share is not None
    return share


def checkpoints(server: ModalServer, key: str) -> list[int]:
    folder = server.volume_tree("axosweep-runs") / "runs" / key / "model"
    return sorted(int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*"))


def test_a_plan_above_its_budget_is_refused_and_forced_it_is_stopped_when_its_share_is_spent(tmp_path: Path) -> None:
    with ModalServer(Settings(container_python=trainer_environment.find(), grace_s=10)) as server:
        server.set_secret("secrets-hf-wandb", SECRET)
        (tmp_path / "work").mkdir()
        here = Axosweep(Store(tmp_path / "store"), tmp_path / "work", server.environment())
        assert here.run("max_steps=20", *ON_MODAL).returncode == 0  # the speed is known from here on

        (short,) = here.json("compare")["runs"]
        start = paid_seconds(server, short["key"])  # a slow machine takes longer to begin

        (asked,) = here.json("plan", *ENDLESS)["cost"]["runs"]
        assert asked["basis"] == "1 record"
        dollars_s = asked["dollars"]["high"] / asked["rented_seconds"]["high"]
        budget = f"budget={(1.4 * start + 8) * dollars_s:.8f}"
        calls = len(server.function_calls())
        planned, refused = here.run("plan", *ENDLESS, budget), here.run(*ENDLESS, budget)
        asks = here.run(*ENDLESS, "confirm_above=0.0001")
        assert (planned.returncode, refused.returncode, asks.returncode) == (2, 2, 2)
        assert "this may cost" in planned.stderr
        assert "this may cost" in refused.stderr
        assert "one boot more" in planned.stdout
        assert "nobody is here to be asked: add --yes" in asks.stderr
        assert len(server.function_calls()) == calls

        stopped = here.run(*ENDLESS, budget, "--force")
        assert stopped.returncode == 1, stopped.stderr
        told: dict[str, Any] = here.json("compare")
        (row,) = told["runs"]
        share = share_of(server, row["key"], told["sweep"])
        assert share.seconds == pytest.approx(1.4 * start + 8, abs=0.1)
        assert row["status"] == "failed (budget)"
        assert "its share of the budget, $" in row["message"]
        assert row["attempts"] == 1
        assert 0.8 * share.seconds < paid_seconds(server, row["key"]) < share.seconds + 10
        (reached,) = checkpoints(server, row["key"])
        assert reached > 0

        again = here.run(*ENDLESS, budget, "--force")
        assert again.returncode == 1
        assert here.json("compare")["runs"][0]["attempts"] == 1

        raised = here.run(*ENDLESS, f"budget={(3 * start + 18) * dollars_s:.8f}", "--force")
        assert raised.returncode == 1
        (row,) = here.json("compare")["runs"]
        assert (row["status"], row["attempts"]) == ("failed (budget)", 2)
        assert paid_seconds(server, row["key"]) < 3 * start + 18 + 10
        assert max(checkpoints(server, row["key"])) > reached
