"""A preloaded trainer that is killed or suspended while a command needs it: the real server, with hollow packages."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from modal_app.warm.address import Address
from runner import cli
from runner.executors.mixed_workers import MixedWorkers, RunningValidator
from runner.executors.warm_server import TrainerConnection, reach_running, running
from runner.executors.warm_silence import Silence
from runner.executors.warm_workers import AGAIN, WarmWorkers
from runner.executors.workers import FreshWorkers, WorkerExit
from tests.modal_app.hollow_trainer import found, make_store, make_trainer, probing
from tests.waiting import wait_until

IDLE_S = 60.0
OWN_PARENT = "import json, os; json.dump([os.getpid(), os.getppid()], open('found.json', 'w'))"


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="axosweep-", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield
        for note in running(None):
            os.kill(note.owner.pid, signal.SIGKILL)


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(tmp_path / "trainer"))
    return make_trainer(tmp_path / "trainer")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def workers(python: Path, store: Store, messages: list[str]) -> Iterator[MixedWorkers]:
    warm = WarmWorkers(python, store.root, {}, IDLE_S, messages.append)
    mixed = MixedWorkers(warm, FreshWorkers(python, store.root, {}), messages.append)
    yield mixed
    mixed.close()


def process_of(workers: MixedWorkers) -> subprocess.Popen[bytes]:
    assert workers.warm._reached is not None
    assert workers.warm._reached.process is not None
    return workers.warm._reached.process


def ended(workers: MixedWorkers, count: int) -> list[WorkerExit]:
    exited: list[WorkerExit] = []

    def all_have() -> bool:
        exited.extend(workers.wait(0.05))
        return len(exited) >= count

    wait_until(all_have)
    return exited


def suspend(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")


def test_steps_of_a_trainer_that_is_killed_while_it_imports_are_submitted_again_once(
    workers: MixedWorkers, store: Store, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_IMPORTING", "30")
    for key in ("one", "two"):
        workers.start(probing(key, OWN_PARENT))
    first = process_of(workers)
    monkeypatch.setenv("PYTHON_IMPORTING", "0")
    first.kill()
    assert {one.code for one in ended(workers, 2)} == {1}, "each ran, by its own record"
    parents = {found(store, key)[1] for key in ("one", "two")}
    assert parents == {process_of(workers).pid}
    assert first.pid not in parents
    assert messages == [AGAIN]


def test_steps_whose_trainer_is_killed_twice_are_lost(workers: MixedWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_IMPORTING", "30")
    workers.start(probing("one", "pass"))
    first = process_of(workers)
    first.kill()
    wait_until(lambda: workers.wait(0.05) == [] and workers.warm._reached and process_of(workers) is not first)
    process_of(workers).kill()
    (lost,) = ended(workers, 1)
    assert (lost.step, lost.code, lost.pid) == ((StepKind.TRAIN, "one"), None, None)
    assert lost.log is not None


def test_a_step_that_was_told_to_stop_is_not_submitted_again(
    workers: MixedWorkers, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_IMPORTING", "30")
    workers.start(probing("one", "pass"))
    workers.signal((StepKind.TRAIN, "one"), signal.SIGTERM)
    process_of(workers).kill()
    assert [one.code for one in ended(workers, 1)] == [None]
    assert not workers.warm.busy
    assert running(store.root) == []


def test_configs_are_checked_even_if_the_trainer_is_killed_meanwhile(
    workers: MixedWorkers, tmp_path: Path, messages: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_IMPORTING", "30")
    (tmp_path / "questions.json").write_text("[]")
    workers.warm_up()
    first = process_of(workers)
    monkeypatch.setenv("PYTHON_IMPORTING", "0")
    killer = threading.Timer(0.3, first.kill)
    killer.start()
    workers.validate(tmp_path)
    killer.join()
    assert json.loads((tmp_path / "answers.json").read_text()) == []
    assert messages == [AGAIN]


@pytest.mark.slow
def test_a_suspended_trainer_is_waited_for_by_no_command(
    workers: MixedWorkers,
    python: Path,
    store: Store,
    messages: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun = probing("begun", "import os, time; open('here', 'w'); time.sleep(0.1)")
    workers.start(begun)
    wait_until(lambda: workers.wait(0.01) == [] and workers.pid((begun.kind, begun.key)))
    trainer, pid = process_of(workers), workers.pid((begun.kind, begun.key))
    suspend(trainer.pid)

    workers.start(probing("next", OWN_PARENT))
    codes = {one.step[1]: (one.code, one.pid) for one in ended(workers, 2)}
    assert codes["begun"] == (None, pid), "the launch follows it in its folder"
    assert codes["next"][0] == 1
    assert found(store, "next")[1] == os.getpid()
    (message,) = messages
    assert f"(process {trainer.pid}) is suspended; `axosweep warm stop` ends it" in message

    (tmp_path / "questions.json").write_text("[]")
    reached = reach_running(python, store.root)
    assert reached is not None
    RunningValidator(python, store.root, reached).validate(tmp_path)
    assert json.loads((tmp_path / "answers.json").read_text()) == []

    workers.close()
    assert cli.main(["warm", "--store", str(store.root)]) == 0
    assert "suspended" in capsys.readouterr().out
    assert cli.main(["warm", "stop", "--store", str(store.root)]) == 0
    assert f"{trainer.pid}  {store.root}: ended." in capsys.readouterr().out


def test_a_trainer_that_hangs_is_waited_for_only_so_long(tmp_path: Path) -> None:
    here = Address(tmp_path / "warm")
    here.leave_note(tmp_path)
    silence = Silence(TrainerConnection(socket.socket(), here, None), answer_s=0.02, import_s=60.0)
    time.sleep(0.04)
    assert silence.why_to_give_up(answer_is_due=True) == "", "it may still import"
    silence.end(ready=True)
    time.sleep(0.04)
    assert silence.why_to_give_up(answer_is_due=False) == "", "a run may take as long as it likes"
    assert f"(process {os.getpid()}) has not answered" in silence.why_to_give_up(answer_is_due=True)


DISPOSITIONS = (
    "import json, signal; json.dump([signal.getsignal(n) is signal.SIG_IGN for n in (signal.SIGHUP, signal.SIGQUIT, "
    "signal.SIGUSR2)], open('found.json', 'w'))"
)


def test_a_fork_ignores_the_signals_that_its_own_command_ignores(
    workers: MixedWorkers, python: Path, store: Store
) -> None:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGHUP, signal.SIGQUIT)}  # nohup, &
    try:
        workers.start(probing("one", DISPOSITIONS))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    ended(workers, 1)
    assert found(store, "one") == [True, True, False]
    other = WarmWorkers(python, store.root, {}, IDLE_S)
    other.start(probing("two", DISPOSITIONS))
    wait_until(lambda: other.wait(0.05))
    other.close()
    assert found(store, "two") == [False, False, False], "the trainer was started by a command that ignored them"
