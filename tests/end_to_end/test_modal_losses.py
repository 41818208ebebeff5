"""Real trainings on the local Modal that are disturbed, and end with the losses of an undisturbed one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from tests.end_to_end.axosweep import Axosweep
from tests.end_to_end.on_modal import local_modal, with_axolotl
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts
from tests.modal_server.views import Spawned

pytestmark = [pytest.mark.slow, needs_mounts]

WORDS = ("lora=r8", "data.limit=400", "micro_batch_size=8", "num_epochs=1", "tracking=disabled")
Losses = dict[tuple[int, str], float]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """The losses of the same run on this machine."""
    folder = tmp_path_factory.mktemp("undisturbed")
    here = Axosweep(Store(folder / "store"), folder)
    assert here.run(*WORDS, "save_steps=20").returncode == 0
    return losses(here.store)


@pytest.fixture(scope="module")
def server() -> Iterator[ModalServer]:
    """A server with room for both runs: they read one dataset, and differ in how often they save."""
    with local_modal(with_axolotl()) as server:
        yield server


def losses(store: Store) -> Losses:
    """Everything that was logged; of a step that was repeated, the last values."""
    (metrics,) = store.root.glob("**/runs/*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return {(line["step"], name): line[name] for line in lines for name in ("loss", "eval_loss") if name in line}


def wait_for_losses_of(server: ModalServer, store: Store, attempt: int) -> str:
    """The container in which an attempt at the store's run is training, once it has logged something there."""

    def training() -> str | None:
        (run,) = (store.root / "modal" / "runs").glob("*")
        draft = f"runs/{run.name}/attempt-{attempt}/draft/metrics.jsonl"
        for metrics in server.folder.glob(f"t/*/volumes/*/{draft}"):
            if f'"attempt": {attempt},' in metrics.read_text():
                return metrics.parents[6].name
        return None

    server.wait_until(lambda: list(store.root.glob("modal/runs/*")), 60)
    folder = server.wait_until(training, 120)
    (task,) = [task for task in server.tasks("train") if task.id[3:].startswith(str(folder))]
    return task.id


def calls_of_training(server: ModalServer, since: float) -> list[Spawned]:
    return [call for call in server.function_calls("train") if call.created_at >= since]


def worker_of(server: ModalServer) -> int:
    """The only worker that trains now."""
    found = [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"modal_app/run.py\0worker" in _read(path)]
    (pid,) = [int(path.parent.name) for path in found if server.folder.name.encode() in _read(path.parent / "mounts")]
    return pid


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a pending signal."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd")]
    return bool(int(line.split()[1], 16) >> (number - 1) & 1)


def test_a_run_that_is_preempted_then_killed_then_crashes_ends_in_the_losses_of_an_undisturbed_one(
    on_modal: Axosweep, server: ModalServer, undisturbed: Losses
) -> None:
    client, began = on_modal.start(*WORDS, "save_steps=20", "executor=modal"), time.time()
    disturbances: list[Callable[[str], None]] = [
        server.preempt,
        server.kill,
        lambda task: os.kill(worker_of(server), signal.SIGSEGV),
    ]
    for number, disturb in enumerate(disturbances, start=1):
        disturb(wait_for_losses_of(server, on_modal.store, number))
    said, _ = client.communicate(timeout=300)
    assert client.returncode == 0, said
    assert losses(on_modal.store) == undisturbed
    (row,) = on_modal.json("compare")["runs"]
    assert row["attempts"] == 4
    receipt = row["receipt"]
    assert [one["parts"]["boot"] > 0 for one in receipt["containers"]] == [True] * 4
    paid = sum(seconds for name, seconds in receipt["parts"].items() if name != "queue")
    assert paid == pytest.approx(row["paid_seconds"], abs=0.05)
    (call,) = calls_of_training(server, began)
    assert [task.exit_code for task in server.tasks_of(call.id)] == [0, 137, 0, 0]


def test_a_run_longer_than_its_time_limit_ends_in_the_losses_of_one_without(
    on_modal: Axosweep, server: ModalServer, undisturbed: Losses
) -> None:
    """The worker is frozen during training until the limit is reached: so it is reached then, however fast this machine
    is."""
    limited = ("save_steps=25", "executor=modal", f"executor.modal.timeout_hours={40 / 3600}")
    client, began = on_modal.start(*WORDS, *limited), time.time()
    wait_for_losses_of(server, on_modal.store, 1)
    worker = worker_of(server)
    os.kill(worker, signal.SIGSTOP)
    server.wait_until(lambda: is_pending(worker, signal.SIGTERM), 60)
    os.kill(worker, signal.SIGCONT)
    said, _ = client.communicate(timeout=300)
    assert client.returncode == 0, said
    assert losses(on_modal.store) == undisturbed
    (row,) = on_modal.json("compare")["runs"]
    assert row["attempts"] == 2
    assert [call.status for call in calls_of_training(server, began)] == ["success"] * 2
