"""Rungs with executor=modal, where the worker in the containers does nothing but ask: the client is killed, comes back
after its sweep has been forgotten, and leaves alone what has stopped."""

from __future__ import annotations

from collections import Counter

import pytest

from modal_app.halving.choose import who_goes_on
from modal_app.halving.entries import FileEntries
from modal_app.halving.standing import Standing
from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import ON_GPUS, beside, local_modal
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

RATES = ",".join(f"{1 + 5 * number % 12}e-4" for number in range(12))
WORDS = ("-m", f"learning_rate={RATES}", "search.rungs=[0.2,0.6]", "search.eta=3", "search.audit=false", *ON_GPUS)


def standing(on_modal: Axosweep) -> Standing:
    (folder,) = (on_modal.store.root / "modal").glob("sweeps/*/rungs/*")
    return Standing.of(FileEntries(folder).items())


def all_have_gone_that_should(found: Standing) -> bool:
    return all(found.has_gone(rung, run) for rung in (1, 2) for run in who_goes_on(found, rung))


def test_a_search_whose_client_is_killed_goes_on_by_itself_and_is_left_alone_when_it_is_over(alone: Axosweep) -> None:
    with local_modal(noop_settings(train_s=0.4)) as server:
        on_modal = beside(alone, server, alone.store)
        client = on_modal.start(*WORDS)
        server.wait_until(lambda: len(server.function_calls("train")) >= 12, 90)
        kill(client.pid)
        client.communicate()
        server.wait_until(lambda: all(one.status == "success" for one in server.function_calls()), 90)
        server.wait_until(lambda: all(task.ended_at for task in server.tasks("train")), 30)
        before, trained = len(server.function_calls()), len(server.function_calls("train"))

        again = on_modal.run(*WORDS)
        assert again.returncode == 0, again.stderr
        assert len(server.function_calls()) == before, "nothing is left to do"
        statuses = Counter(row["status"] for row in on_modal.json("compare")["runs"])
        assert set(statuses) == {"succeeded", "stopped at rung"}
        assert statuses.total() == 12
        assert all_have_gone_that_should(standing(on_modal))

        stopped = next(row["key"] for row in on_modal.json("compare")["runs"] if row["status"] == "stopped at rung")
        resumed = on_modal.run("resume", stopped, "--yes")
        assert resumed.returncode == 0, resumed.stderr
        assert len(server.function_calls("train")) == trained + 1
        rows = {row["key"]: row for row in on_modal.json("compare")["runs"]}
        assert rows[stopped]["status"] == "succeeded"
        assert Counter(row["status"] for row in rows.values())["succeeded"] == statuses["succeeded"] + 1
