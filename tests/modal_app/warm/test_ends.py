"""How a preloaded trainer and its forks end: none is left behind, and none ends while a process waits for it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from modal_app.warm.address import DOOR
from tests.modal_app.hollow_trainer import probing
from tests.modal_app.steps import Warm, alive, children
from tests.waiting import wait_until

SLEEPS = "import time; open('here', 'w'); time.sleep(60)"
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("when", ["while a command is there", "after the last one has gone"])
def test_a_server_ends_when_its_store_is_deleted(warm: Warm, store: Store, when: str) -> None:
    warm.say(idle_s=600)
    assert warm.run(probing("one", "pass")) == 1
    os.kill(warm.process.pid, signal.SIGSTOP)
    if when == "while a command is there":
        shutil.rmtree(store.root)
        warm.leave()
        os.kill(warm.process.pid, signal.SIGCONT)
    else:
        os.kill(warm.process.pid, signal.SIGCONT)
        warm.leave()
        shutil.rmtree(store.root)
    assert warm.process.wait(timeout=20) == 0
    assert list(warm.here.stem.parent.glob("warm*")) == []
    assert not store.root.exists()


def test_a_command_that_goes_can_still_end_what_it_began(warm: Warm, store: Store) -> None:
    other = Warm.join(warm.process, warm.here, os.environ)
    pid = other.begin(probing("one", SLEEPS))
    os.kill(warm.process.pid, signal.SIGSTOP)
    other.say(step=json.loads(probing("two", SLEEPS).to_json()))
    other.say(signal=int(signal.SIGKILL), kind="train", key="one")
    other.leave()
    os.kill(warm.process.pid, signal.SIGCONT)
    wait_until(lambda: not alive(pid), "its end", timeout_s=10)
    assert warm.run(probing("three", "pass")) == 1
    assert not store.folder(StepKind.TRAIN, "two").path.exists()


def test_a_fork_whose_end_cannot_be_recorded_harms_no_other(warm: Warm) -> None:
    in_the_way = "import os; os.makedirs('exit.json/taken'); os.kill(os.getpid(), 9)"
    assert warm.run(probing("one", in_the_way)) == -signal.SIGKILL
    assert warm.run(probing("two", "pass")) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_fork_that_has_nothing_to_keep_yet_ends_at_the_first_signal(
    warm: Warm, tmp_path: Path, number: signal.Signals
) -> None:
    """The server itself handles the one signal, and ignores the other."""
    os.mkfifo(tmp_path / "questions.json")
    warm.say(validate=str(tmp_path))
    wait_until(lambda: children(warm.process.pid), "a fork")
    (pid,) = children(warm.process.pid)
    wait_until(lambda: sleeps(pid), "it reads")
    os.kill(pid, number)
    assert warm.next("validated")["code"] == -number


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_a_server_that_cannot_leave_yet_does_not_keep_a_core_busy(warm: Warm) -> None:
    with (warm.here.stem.parent / DOOR).open("w") as door:
        fcntl.flock(door, fcntl.LOCK_EX)
        warm.leave()
        wait_until(lambda: warm.here.note.exists(), "it is there")
        before = worked_s(warm.process.pid)
        time.sleep(1)
        assert worked_s(warm.process.pid) - before < 0.2
        assert warm.process.poll() is None
    assert warm.process.wait(timeout=5) == 0


def test_an_idle_server_sleeps_once_its_memory_is_in_huge_pages(warm: Warm) -> None:
    warm.say(idle_s=60)
    warm.leave()
    time.sleep(1.5)
    before = worked_s(warm.process.pid)
    time.sleep(1)
    assert worked_s(warm.process.pid) - before < 0.05
    warm.process.terminate()
    assert warm.process.wait(timeout=5) == 0


def worked_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def test_a_server_whose_folder_is_gone_sees_its_command_through(warm: Warm, store: Store) -> None:
    warm.begin(probing("one", "import time; time.sleep(0.5)"))
    shutil.rmtree(warm.here.stem.parent)
    os.kill(warm.process.pid, signal.SIGTERM)
    assert warm.end(probing("one", "")) == 1
    assert warm.run(probing("two", "pass")) == 1
    warm.leave()
    assert warm.process.wait(timeout=10) == 0
