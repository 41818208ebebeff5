"""Follow-up steps on Modal: their calls. The worker in the containers does nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import ON_GPUS, RUNS, calls_since, local_modal
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

OF_RUNS = ("-m", "learning_rate=1e-3,3e-3", *ON_GPUS)
CHAIN = (*OF_RUNS, "stages=[preprocess,train,merge]")


@pytest.fixture
def server() -> Iterator[ModalServer]:
    with local_modal(noop_settings()) as server:
        yield server


def merges(server: ModalServer) -> list[str]:
    return [path.name for path in (server.volume_tree(RUNS) / "done").glob("merge-*")]


def test_a_chain_goes_on_by_itself_in_a_merge_on_one_gpu_for_each_run_and_once(
    on_modal: Axosweep, server: ModalServer
) -> None:
    done = on_modal.run(*CHAIN)
    assert done.returncode == 0, done.stderr
    assert calls_since(server, 0.0) == {"preprocess": 1, "train": 2, "after": 2}
    assert {call.gpu for call in server.function_calls() if call.function == "after"} == {"A100-80GB"}
    assert done.stderr.count("merge ") >= 2
    again, started = on_modal.run(*CHAIN), time.time()
    assert again.returncode == 0, again.stderr
    assert "merge (done before)" in again.stdout
    assert not calls_since(server, started)


def test_the_client_dies_after_it_has_submitted_and_the_cloud_goes_on_to_the_merges(
    on_modal: Axosweep, server: ModalServer
) -> None:
    client = on_modal.start(*CHAIN)
    server.wait_until(lambda: server.function_calls("preprocess"), 60)
    kill(client.pid)
    server.wait_until(lambda: len(merges(server)) == 2, 60)
    attached = on_modal.run("attach")
    assert attached.returncode == 0, attached.stderr
    assert calls_since(server, 0.0) == {"preprocess": 1, "train": 2, "after": 2}


def test_the_best_run_is_merged_where_it_is_and_once_and_a_later_chain_merges_the_other_and_trains_nothing(
    on_modal: Axosweep, server: ModalServer
) -> None:
    assert on_modal.run(*OF_RUNS).returncode == 0
    best = on_modal.json("best")["run"]["key"]
    merged = on_modal.json("merge")
    assert (merged["run"], merged["status"]) == (best, "succeeded")
    assert calls_since(server, 0.0) == {"preprocess": 1, "train": 2, "after": 1}, "a verb starts no training"
    assert on_modal.json("merge", best[:8])["model"] == merged["model"]
    assert calls_since(server, 0.0)["after"] == 1
    started = time.time()
    assert on_modal.run(*CHAIN).returncode == 0
    assert calls_since(server, started) == {"after": 1}
    assert len(merges(server)) == 2
