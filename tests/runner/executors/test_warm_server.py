"""The preloaded trainer of a user and a store, as commands find it: the real server, with empty packages."""

from __future__ import annotations

import json
import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.warm.address import Note, address
from runner import cli
from runner.executors.mixed_workers import RunningValidator
from runner.executors.warm_server import TrainerConnection, idle_limit, is_alive, reach, reach_running, running
from runner.executors.warm_workers import WarmWorkers
from tests.modal_app.hollow_trainer import found, make_store, make_trainer, probing
from tests.waiting import wait_until

IDLE_S = 60.0


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the test's own for trainers, with a name that is short enough; remaining trainers are ended."""
    with tempfile.TemporaryDirectory(prefix="axosweep-", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name) / "axosweep"
        for note in running(None):
            os.kill(note.owner.pid, signal.SIGKILL)


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "trainer"
    monkeypatch.setenv("AXOSWEEP_TRAINER", str(folder))
    return make_trainer(folder)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "store")


@pytest.fixture
def connect(python: Path, store: Store, sockets: Path) -> Iterator[Callable[[], TrainerConnection]]:
    reached: list[TrainerConnection] = []

    def one() -> TrainerConnection:
        reached.append(reach(python, store.root, IDLE_S))
        return reached[-1]

    yield one
    for each in reached:
        each.socket.close()
        if each.process is not None:
            each.process.kill()
            each.process.wait()


def ready(reached: TrainerConnection) -> None:
    reached.socket.settimeout(10)
    assert b'"ready"' in reached.socket.recv(1 << 12)


def note_of(reached: TrainerConnection) -> Note:
    wait_until(lambda: any(note.address == reached.address for note in running(None)))
    return next(note for note in running(None) if note.address == reached.address)


def test_commands_at_once_share_one(python: Path, store: Store, sockets: Path) -> None:
    reached: list[TrainerConnection] = []
    start = threading.Barrier(5)

    def command() -> None:
        start.wait()
        reached.append(reach(python, store.root, IDLE_S))

    threads = [threading.Thread(target=command) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(one.process is not None for one in reached) == 1
    for one in reached:
        ready(one)
        one.socket.close()
    assert len(running(None)) == 1


def test_it_serves_the_next_command_after_the_first_has_gone(python: Path, store: Store, sockets: Path) -> None:
    pids = []
    for key in ("one", "two"):
        workers = WarmWorkers(python, store.root, {"SAID": key}, IDLE_S)
        probe = "import json, os; json.dump([os.getppid(), os.environ['SAID']], open('found.json', 'w'))"
        workers.start(probing(key, probe))
        wait_until(lambda workers=workers: workers.wait(0.05))  # type: ignore[misc]
        workers.close()
        pid, said = found(store, key)
        assert said == key
        pids.append(pid)
    assert pids[0] == pids[1] == running(store.root)[0].owner.pid


def test_each_store_has_its_own(connect: Callable[[], TrainerConnection], python: Path, tmp_path: Path) -> None:
    first = connect()
    other = reach(python, tmp_path / "other", IDLE_S)
    assert other.process is not None
    assert is_alive(note_of(first))
    assert is_alive(note_of(other))
    assert [note.store for note in running(tmp_path / "other")] == [str(tmp_path / "other")]
    other.process.kill()


def test_a_killed_one_is_replaced_and_nothing_of_it_stays(
    connect: Callable[[], TrainerConnection], sockets: Path
) -> None:
    first = connect()
    ready(first)
    assert first.process is not None
    first.process.kill()
    first.process.wait()
    second = connect()
    assert second.process is not None
    ready(second)
    assert sorted(path.suffix for path in sockets.iterdir()) == [".json", ".lock", ".log", ".sock"]


PACKAGES = Path("lib", "python3", "site-packages")
CHANGES: dict[str, Callable[[pytest.MonkeyPatch, Path], object]] = {
    "threads": lambda patch, trainer: patch.setenv("OMP_WAIT_POLICY", "passive"),
    "cache": lambda patch, trainer: patch.setenv("HF_HOME", "/elsewhere"),
    "packages": lambda patch, trainer: (trainer / PACKAGES / "new").mkdir(),
    "installed again": lambda patch, trainer: os.utime(trainer / PACKAGES / "old-1.dist-info", (1, 1)),
    "lock": lambda patch, trainer: (trainer / "built-from.sha256").write_text("another"),
    "job": lambda patch, trainer: patch.setenv("SLURM_JOB_ID", "7"),
}


def test_bytecode_that_an_import_leaves_makes_no_other_one(
    connect: Callable[[], TrainerConnection], python: Path
) -> None:
    first = connect()
    for path in (PACKAGES / "__pycache__", PACKAGES / "old" / "__pycache__"):
        (python.parent.parent / path).mkdir(exist_ok=True)
    assert connect().address == first.address


@pytest.mark.medium
@pytest.mark.parametrize("change", CHANGES)
def test_one_that_would_not_fit_any_more_ends_and_another_is_started(
    connect: Callable[[], TrainerConnection], python: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    first = connect()
    ready(first)
    stale = note_of(first)
    CHANGES[change](monkeypatch, python.parent.parent)
    second = connect()
    assert second.address != first.address
    ready(second)
    assert is_alive(stale), "a command is there"
    first.socket.close()
    assert first.process is not None
    assert first.process.wait(timeout=10) == 0


@pytest.mark.parametrize("variable", ["HF_TOKEN", "WANDB_API_KEY", "TERM", "SSH_TTY", "HF_HUB_OFFLINE"])
def test_what_no_import_asks_for_makes_no_other_one(
    connect: Callable[[], TrainerConnection], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    first = connect()
    monkeypatch.setenv(variable, "1")
    assert connect().address == first.address


def test_one_without_a_waiting_command_ends_while_it_still_imports(
    connect: Callable[[], TrainerConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_IMPORTING", "30")
    first, second = connect(), connect()
    note_of(first)
    assert first.process is not None
    first.socket.close()
    os.kill(first.process.pid, signal.SIGTERM)
    time.sleep(0.3)
    assert first.process.poll() is None, "the second waits"
    second.socket.close()
    os.kill(first.process.pid, signal.SIGTERM)
    assert first.process.wait(timeout=5) == 0
    assert not first.address.socket.exists()


def test_one_that_its_starter_does_not_need_stays_for_a_command_that_waits_already(
    connect: Callable[[], TrainerConnection], python: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets the request to end before its first line has run."""
    monkeypatch.setenv("PYTHON_STARTING", "0.5")
    starter = WarmWorkers(python, store.root, {}, IDLE_S)
    starter.warm_up()
    other = connect()
    assert other.process is None
    starter.close()
    ready(other)


def test_one_that_imports_stays_while_a_command_is_about_to_connect(
    connect: Callable[[], TrainerConnection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has the lock has seen the socket there."""
    monkeypatch.setenv("PYTHON_IMPORTING", "2")
    first = connect()
    note_of(first)
    first.socket.close()
    assert first.process is not None
    with first.address.door(wait=True):
        os.kill(first.process.pid, signal.SIGTERM)
        time.sleep(0.3)
        assert first.process.poll() is None
    second = connect()
    assert second.process is None
    ready(second)


def test_one_whose_socket_was_removed_leaves_its_successors_alone(
    connect: Callable[[], TrainerConnection],
) -> None:
    """Remove files as a cleaner of /tmp does."""
    first = connect()
    ready(first)
    first.address.socket.unlink()
    second = connect()
    ready(second)
    first.socket.close()
    assert first.process is not None
    assert first.process.wait(timeout=10) == 0
    third = connect()
    ready(third)
    assert third.process is None
    assert second.process is not None
    assert note_of(second).owner.pid == second.process.pid


def test_modules_next_to_a_command_are_found_as_by_a_process_of_its_own(
    python: Path, store: Store, sockets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "mine")
    probe = "import beside, json; json.dump(beside.WHERE, open('found.json', 'w'))"
    for where in ("one", "two"):
        (tmp_path / where / "mine").mkdir(parents=True)
        (tmp_path / where / "mine" / "beside.py").write_text(f"WHERE = {where!r}\n")
        monkeypatch.chdir(tmp_path / where)
        workers = WarmWorkers(python, store.root, {}, IDLE_S)
        workers.start(probing(where, probe))
        wait_until(lambda workers=workers: workers.wait(0.05))  # type: ignore[misc]
        workers.close()
        assert found(store, where) == where


def test_a_plan_uses_the_running_trainer_and_leaves_it_running(
    connect: Callable[[], TrainerConnection], python: Path, store: Store, tmp_path: Path
) -> None:
    assert reach_running(python, store.root) is None, "it starts none"
    assert running(None) == []
    ready(connect())
    (tmp_path / "questions.json").write_text("[]")
    reached = reach_running(python, store.root)
    assert reached is not None
    RunningValidator(python, store.root, reached).validate(tmp_path)
    assert json.loads((tmp_path / "answers.json").read_text()) == []
    assert len(running(store.root)) == 1


def test_warm_says_what_there_is_and_stop_ends_it(
    connect: Callable[[], TrainerConnection], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["warm", "--all"]) == 0
    assert capsys.readouterr().out == "No trainer is preloaded.\n"
    first = connect()
    ready(first)
    assert cli.main(["warm", "--json", "--store", str(store.root)]) == 0
    (printed,) = json.loads(capsys.readouterr().out)["trainers"]
    assert (printed["pid"], printed["store"]) == (note_of(first).owner.pid, str(store.root))
    assert (printed["ready"], printed["idle_s"], printed["commands"], printed["steps"]) == (True, IDLE_S, 1, [])
    first.socket.close()
    assert cli.main(["warm", "stop", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out == f"{printed['pid']}  {store.root}: ended.\n"
    assert running(None) == []


def test_stop_leaves_those_of_other_stores_alone(connect: Callable[[], TrainerConnection], tmp_path: Path) -> None:
    note = note_of(connect())
    assert cli.main(["warm", "stop", "--store", str(tmp_path / "other")]) == 0
    assert is_alive(note)
    assert note.address.socket.exists()


def test_stop_of_all_stores_ends_nothing_of_another_one_without_a_yes(
    connect: Callable[[], TrainerConnection], store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = connect()
    note = note_of(first)
    ready(first)
    first.socket.close()
    of_all = ["warm", "stop", "--all", "--store", str(tmp_path / "other")]
    assert cli.main(of_all) == 2
    said = capsys.readouterr().err
    assert str(store.root) in said
    assert "there is no terminal to ask on. Add --yes" in said
    assert is_alive(note)
    assert cli.main([*of_all, "--yes"]) == 0
    assert not is_alive(note)


def test_stop_of_all_stores_asks_nothing_where_there_are_only_this_ones(
    connect: Callable[[], TrainerConnection], store: Store
) -> None:
    first = connect()
    ready(first)
    first.socket.close()
    assert cli.main(["warm", "stop", "--all", "--store", str(store.root)]) == 0
    assert running(None) == []


def test_stop_leaves_a_working_trainer_alone_and_says_so(
    python: Path, store: Store, sockets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workers = WarmWorkers(python, store.root, {}, IDLE_S)
    step = probing("one", "import time; time.sleep(1)")
    workers.start(step)
    wait_until(lambda: workers.wait(0.01) == [] and workers.pid((step.kind, step.key)))
    assert cli.main(["warm", "stop", "--store", str(store.root)]) == 0
    assert "will end when no command uses it" in capsys.readouterr().out
    assert cli.main(["warm", "--all"]) == 0
    assert "ends when no command uses it" in capsys.readouterr().out
    (exited,) = workers.wait(10)
    assert exited.code == 1, "by its own account"
    (note,) = running(None)
    workers.close()
    wait_until(lambda: not is_alive(note))


def test_a_lower_limit_of_a_command_is_not_the_next_ones(
    connect: Callable[[], TrainerConnection], python: Path, store: Store
) -> None:
    """A lowered hard limit cannot be raised again, so the command needs another trainer."""
    first = connect()
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        assert connect().address == first.address
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.mark.parametrize(
    ("asked", "variable", "seconds"),
    [
        (None, None, 300),
        (None, "0", 0),
        (None, "12.5", 12.5),
        (None, "long", 300),
        (None, "nan", 0),
        ("soon", "12", 12),
        (7, "12", 7),
        (0, "12", 0),
    ],
)
def test_how_long_it_waits_is_the_configs_then_the_environments(
    monkeypatch: pytest.MonkeyPatch, asked: Any, variable: str | None, seconds: float
) -> None:
    monkeypatch.delenv("AXOSWEEP_WARM_IDLE_S", raising=False)
    if variable is not None:
        monkeypatch.setenv("AXOSWEEP_WARM_IDLE_S", variable)
    assert idle_limit(asked) == seconds


def test_a_name_fits_into_a_sockets_address(tmp_path: Path) -> None:
    longest = address(Path("/run/user/4294967294/axosweep"), tmp_path / ("x" * 200), "0" * 16)
    assert len(os.fsencode(longest.socket)) <= 107
