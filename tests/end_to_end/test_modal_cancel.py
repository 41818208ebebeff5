"""`axosweep cancel` on the local Modal, where the worker does nothing until it may end."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.store.ledger import Event
from tests.end_to_end.axosweep import Axosweep, kill
from tests.end_to_end.on_modal import ON_GPUS, RUNS, attempts, beside, finish, local_modal, recorded, statuses
from tests.modal_server import ModalServer
from tests.modal_server.fixture import needs_mounts, noop_settings

pytestmark = [pytest.mark.slow, needs_mounts]

GRACE_S = 10.0
"""More than a busy machine takes to record the end, and to say that `cancel` waits for that: afterwards a container is
killed, and its run is lost."""
TWO_RUNS = ("-m", "lora=r8,r16", *ON_GPUS)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """The file that lets datasets finish."""
    (tmp_path / "signs").mkdir()
    return tmp_path / "signs" / "prepared"


@pytest.fixture
def trained(prepared: Path) -> Path:
    """The file that lets runs finish."""
    return prepared.with_name("trained")


@pytest.fixture
def saved(prepared: Path) -> Path:
    """The file that lets stopped steps save, which is there from the start."""
    saved = prepared.with_name("saved")
    saved.touch()
    return saved


@pytest.fixture
def server(prepared: Path, trained: Path, saved: Path) -> Iterator[ModalServer]:
    until = {"preprocess": prepared, "train": trained, "save": saved}
    with local_modal(noop_settings(until=until, grace_s=GRACE_S)) as server:
        yield server


def test_one_run_is_cancelled_and_its_dataset_and_the_others_go_on(
    on_modal: Axosweep, server: ModalServer, prepared: Path, trained: Path
) -> None:
    client = on_modal.start(*TWO_RUNS)
    server.wait_until(lambda: server.function_calls("preprocess"), 60)
    server.wait_until(lambda: recorded(on_modal, Event.STARTED) == 1, 20)
    cancelled, kept = sorted(path.name for path in (on_modal.store.root / "modal" / "runs").iterdir())
    done = on_modal.run("cancel", cancelled)
    assert done.returncode == 0, done.stderr
    prepared.touch()
    trained.touch()
    client.communicate(timeout=60)
    rows = {row["key"]: row for row in on_modal.json("compare")["runs"]}
    assert rows[kept]["status"] == "succeeded"
    assert rows[cancelled]["message"] == "cancelled before it started"
    assert rows[cancelled]["status"] == "stopped"
    assert len(server.function_calls("train")) == 1
    assert finish(on_modal, *TWO_RUNS) == {"succeeded": 2}
    assert attempts(server, on_modal) == [1] * 3


def test_one_of_two_runs_is_cancelled_while_both_train_and_the_other_goes_on(
    on_modal: Axosweep, server: ModalServer, prepared: Path, trained: Path
) -> None:
    prepared.touch()
    client = on_modal.start(*TWO_RUNS)
    server.wait_until(lambda: server.log(function="train").count("began train") == 2, 60)
    cancelled, kept = sorted(path.name for path in (on_modal.store.root / "modal" / "runs").iterdir())
    at = time.time()
    done = on_modal.run("cancel", cancelled)
    assert "1 ended" in done.stdout, done.stderr
    server.wait_until(lambda: any(task.ended_at for task in server.tasks("train")), 2 * GRACE_S)
    ended = [task.ended_at for task in server.tasks("train") if task.ended_at]
    assert len(ended) == 1, "the other one still trains"
    assert ended[0] < at + GRACE_S + 5, "the grace time, and what the command itself takes"
    trained.touch()
    client.communicate(timeout=60)
    rows = {row["key"]: row["status"] for row in on_modal.json("compare")["runs"]}
    assert rows == {cancelled: "stopped", kept: "succeeded"}


def test_a_cancelled_sweep_is_stopped_and_its_line_goes_on_with_it(
    on_modal: Axosweep, server: ModalServer, prepared: Path, trained: Path, saved: Path
) -> None:
    prepared.touch()
    client = on_modal.start(*TWO_RUNS)
    server.wait_until(lambda: server.log(function="train").count("began train") == 2, 60)
    kill(client.pid)
    client.communicate()
    saved.unlink()
    cancel = on_modal.start("cancel", stderr=subprocess.PIPE)
    assert cancel.stderr is not None
    assert any("Waiting for the containers to save what they have" in line for line in cancel.stderr)
    saved.touch()
    said, errors = cancel.communicate(timeout=60)
    assert "2 ended" in said, errors
    assert cancel.returncode == 0, errors
    assert statuses(on_modal) == {"stopped": 2}
    server.wait_until(lambda: all(task.state == "ended" for task in server.tasks("train")), 2 * GRACE_S)
    trained.touch()
    assert finish(on_modal, *TWO_RUNS) == {"succeeded": 2}
    assert Counter(attempts(server, on_modal)) == {1: 1, 2: 2}


def test_cancel_ends_the_merges_of_a_sweep(alone: Axosweep) -> None:
    with local_modal(noop_settings(merge_s=60.0, grace_s=10.0)) as server:
        on_modal = beside(alone, server, alone.store)
        client = on_modal.start("-m", "learning_rate=1e-3,3e-3", "stages=[preprocess,train,merge]", *ON_GPUS)
        server.wait_until(lambda: server.log(function="after").count("began merge") == 2, 60)
        done = on_modal.run("cancel")
        assert "2 ended" in done.stdout
        said, _ = client.communicate(timeout=60)
        assert client.returncode == 1, said
        assert not list((server.volume_tree(RUNS) / "done").glob("merge-*"))
