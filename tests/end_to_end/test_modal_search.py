"""A search on the local Modal, with a budget and a client that is killed. The worker in the containers does nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from modal_app.store.step import StepKind
from runner.store.ledger import Event
from tests.end_to_end.axosweep import kill
from tests.end_to_end.on_modal import attempts, local_modal, machine, recorded
from tests.modal_server.fixture import SECRET, needs_mounts, noop_settings
from tests.webhook_server import serve_webhook

pytestmark = [pytest.mark.slow, needs_mounts]


def test_a_search_on_modal_goes_on_after_a_kill_within_its_budget(tmp_path: Path) -> None:
    with local_modal(noop_settings(train_s=1.0)) as server, serve_webhook() as webhook:
        server.set_secret("secrets-hf-wandb", {**SECRET, "MY_NOTIFY_URL": webhook.address})
        here = machine(server, tmp_path / "here")
        axes = ("learning_rate=1e-3,4e-3", "lora=r4,r8")
        words = ("-m", "search=coordinate", *axes, "executor=modal", "tracking=disabled", "notify=MY_NOTIFY_URL")
        poor = here.run(*words, "budget=0.00001")
        assert poor.returncode == 2, poor.stderr
        assert "budget=1e-05" in poor.stderr
        assert not server.function_calls("train")

        client = here.start(*words, "budget=5")
        # The first round is started by the dataset's call, the run of the second one by the client, which records it.
        server.wait_until(lambda: recorded(here, Event.STARTED, StepKind.TRAIN) == 1, 60)
        assert len(server.function_calls("train")) == 3
        kill(client.pid)
        client.communicate()
        (sweep,) = [path.parent.name for path in (here.store.root / "modal").glob("sweeps/*/plan.json")]
        elsewhere = machine(server, tmp_path / "elsewhere").run("attach", sweep)
        assert elsewhere.returncode == 0, elsewhere.stderr
        attached = here.run("attach", sweep)
        assert attached.returncode == 0, attached.stderr
        assert "Going on with search=coordinate: axosweep -m search=coordinate learning_rate=1e-3" in attached.stderr
        assert "The search is over: 4 runs" in attached.stderr
        done = here.run(*words, "budget=5")
        assert done.returncode == 0, done.stderr
        assert len(server.function_calls("train")) == 4, "none was called twice"
        assert set(attempts(server, here)) == {1}
        webhook.wait_for(lambda: len(webhook.bodies) > 0)
        (body,) = webhook.bodies
        assert (body["sweep"], body["event"], body["counts"]) == (sweep, "sweep done", {"succeeded": 4})
        assert "search=" not in here.run("attach", sweep).stderr
