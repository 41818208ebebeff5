"""executor=modal with GPUs that do not exist here: which are requested, how many at a time, and which alternatives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from tests.end_to_end.axosweep import Axosweep
from tests.end_to_end.on_modal import finish, local_modal
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

WORDS = ("-m", "lora=r8,r16", "tracking=disabled", "executor=modal", "--yes")


@pytest.fixture
def server() -> Iterator[ModalServer]:
    """A server with room for more containers than the tests' caps allow."""
    with local_modal(noop_settings(train_s=1.0, max_containers=12)) as server:
        yield server


def test_each_run_has_its_gpus_and_all_of_them_keep_to_the_cap(on_modal: Axosweep, server: ModalServer) -> None:
    done = on_modal.run(*WORDS, "gpu=a100_80gb,h100", "gpu.count=2,4", "executor.max_gpus=14")
    assert done.returncode == 0, done.stderr
    calls = server.function_calls("train")
    assert Counter(call.gpu for call in calls) == {"A100-80GB:2": 2, "A100-80GB:4": 2, "H100:2": 2, "H100:4": 2}
    assert {call.gpu[-1]: call.reserved for call in calls} == {"2": (4.0, 32.0), "4": (8.0, 64.0)}
    shares = {call.gpu: call.max_containers for call in calls}
    assert sum(int(gpu.partition(":")[2]) * share for gpu, share in shares.items()) == 14
    assert server.peak_gpus() <= 14
    rows = on_modal.json("compare")["runs"]
    assert {row["status"] for row in rows} == {"succeeded"}
    assert len(rows) == 8, "on another kind of GPU it is another run, when a sweep asks for both"


def test_as_many_runs_train_at_a_time_as_were_requested(on_modal: Axosweep, server: ModalServer) -> None:
    done = on_modal.run(*WORDS, "gpu=h100", "gpu.count=2", "executor.parallel=1")
    assert done.returncode == 0, done.stderr
    assert {call.max_containers for call in server.function_calls("train")} == {1}
    assert server.peak_gpus() == 2


def test_a_container_does_one_run_after_the_other_where_there_are_more_runs_than_containers(
    on_modal: Axosweep, server: ModalServer
) -> None:
    words = ("-m", "lora=r4,r8,r16", "learning_rate=1e-3,4e-3", "tracking=disabled", "executor=modal", "--yes")
    assert finish(on_modal, *words, "executor.parallel=2") == {"succeeded": 6}
    assert "takes no further call" not in server.log()
    assert len(server.tasks("train")) == 2
    calls = server.function_calls("train")
    assert Counter(len(call.tasks) for call in calls) == {1: 6}, "each run was started once"


def test_acceptable_cards_are_requested_and_used(on_modal: Axosweep, server: ModalServer) -> None:
    server.set_full_gpus("H100:2")
    done = on_modal.run(*WORDS, "gpu=h100", "gpu.count=2", "gpu.fallback=[a100_80gb]", "executor.max_gpus=2")
    assert done.returncode == 0, done.stderr
    name = "train_H100x2_A100-80GBx2"
    asked = [spec.resources.gpu_config for spec in server.function_specs()[name]]
    assert [(gpu.gpu_type, gpu.count) for gpu in asked] == [("H100", 2), ("A100-80GB", 2)]
    assert [task.gpu for task in server.tasks(name)] == ["A100-80GB:2"], "one after the other, in one container"
    assert server.peak_gpus() == 2
    assert not server.function_calls("train")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("gpu=h100", "gpu.count=16"), "several machines are not supported yet"),
        (("gpu=h100", "gpu.count=4", "executor.max_gpus=2"), "Raise executor.max_gpus to 4"),
        (("gpu=h100", "gpu.count=2,4", "executor.max_gpus=5"), "one of each is 6 GPUs"),
    ],
)
def test_what_modal_cannot_give_is_refused_before_anything_is_created(
    on_modal: Axosweep, server: ModalServer, words: tuple[str, ...], says: str
) -> None:
    done = on_modal.run(*WORDS, *words)
    assert done.returncode == 2
    assert says in done.stderr
    assert not server.function_specs()
    assert not list(on_modal.store.root.glob("modal/runs/*"))
