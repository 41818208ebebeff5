"""What comes after a run, on Modal, where the calls are what matters: the worker in the containers does nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.end_to_end.axosweep import Axosweep, kill, wait_until
from tests.modal_server import ModalServer, Settings
from tests.modal_server.fixture import SECRET, needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

ON_GPUS = ("gpu=a100_80gb", "gpu.count=2", "tracking=disabled", "executor=modal", "--yes")
CHAIN = ("-m", "learning_rate=1e-3,3e-3", "stages=[preprocess,train,merge]", *ON_GPUS)
OF_RUNS = ("-m", "learning_rate=1e-3,3e-3", *ON_GPUS)


@pytest.fixture
def settings() -> Settings:
    return noop_settings()


@pytest.fixture
def server(settings: Settings) -> Iterator[ModalServer]:
    with ModalServer(settings) as server:
        server.set_secret("secrets-hf-wandb", SECRET)
        yield server


def functions(server: ModalServer, since: float = 0.0) -> Counter[str]:
    return Counter(call.function for call in server.function_calls() if call.created_at >= since)


def merges(server: ModalServer) -> list[str]:
    return [path.name for path in (server.volume_tree("axosweep-runs") / "done").glob("merge-*")]


def test_a_chain_goes_on_by_itself_in_a_merge_on_one_gpu_for_each_run_and_once(
    on_modal: Axosweep, server: ModalServer
) -> None:
    done = on_modal.run(*CHAIN)
    assert done.returncode == 0, done.stderr
    assert functions(server) == {"preprocess": 1, "train": 2, "after": 2}
    assert {call.gpu for call in server.function_calls() if call.function == "after"} == {"A100-80GB"}
    assert done.stderr.count("merge ") >= 2
    again, started = on_modal.run(*CHAIN), time.time()
    assert again.returncode == 0, again.stderr
    assert "merge (done before)" in again.stdout
    assert not functions(server, started)


def test_the_client_dies_after_it_has_submitted_and_the_cloud_goes_on_to_the_merges(
    on_modal: Axosweep, server: ModalServer
) -> None:
    client = on_modal.start(*CHAIN)
    wait_until(lambda: functions(server)["preprocess"] == 1, "the dataset to be called")
    kill(client.pid)
    wait_until(lambda: len(merges(server)) == 2, "both merges to be done")
    attached = on_modal.run("attach")
    assert attached.returncode == 0, attached.stderr
    assert functions(server) == {"preprocess": 1, "train": 2, "after": 2}


def test_the_best_run_of_a_finished_sweep_is_merged_where_it_is_and_only_once(
    on_modal: Axosweep, server: ModalServer
) -> None:
    assert on_modal.run(*OF_RUNS).returncode == 0
    best = on_modal.json("best")["run"]["key"]
    merged = on_modal.json("merge")
    assert (merged["run"], merged["status"]) == (best, "succeeded")
    assert functions(server)["after"] == 1
    assert on_modal.json("merge", best[:8])["model"] == merged["model"]
    assert functions(server)["after"] == 1
    runs = {row["key"] for row in on_modal.json("compare")["runs"]}
    assert functions(server)["train"] == len(runs), "a verb starts no training"


def test_a_chain_asked_for_later_merges_what_has_trained_and_trains_nothing(
    on_modal: Axosweep, server: ModalServer
) -> None:
    assert on_modal.run(*OF_RUNS).returncode == 0
    started = time.time()
    assert on_modal.run(*CHAIN).returncode == 0
    assert functions(server, started) == {"after": 2}


class TestSlowMerges:
    @pytest.fixture
    def settings(self) -> Settings:
        return noop_settings(merge_s=60)

    def test_cancel_ends_the_merges_of_a_sweep(self, on_modal: Axosweep, server: ModalServer) -> None:
        client = on_modal.start(*CHAIN)
        wait_until(lambda: functions(server)["after"] == 2, "both merges to be called")
        done = on_modal.run("cancel")
        assert "2 ended" in done.stdout
        said, _ = client.communicate(timeout=60)
        assert client.returncode == 1, said
        assert not merges(server)
