"""Real processes, with a stand-in for the trainer's Python: it is started like the real one and uses its protocol."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from modal_app.store.claim import claim
from modal_app.store.flock import try_lock
from modal_app.store.layout import Store
from modal_app.store.sources import RUN
from modal_app.store.step import EXIT_HELD, Step, StepKind
from runner.executors.mixed_workers import MixedWorkers
from runner.executors.warm_workers import WarmWorkers
from runner.executors.workers import FreshWorkers, WorkerExit, Workers
from runner.types import StepId
from tests.runner.fake_trainer import make_trainer
from tests.waiting import wait_until


def step(key: str, **config: object) -> Step:
    return Step(StepKind.TRAIN, key, config, data_key="data")


def this(key: str) -> StepId:
    return (StepKind.TRAIN, key)


def ended(workers: Workers, count: int) -> list[WorkerExit]:
    exited: list[WorkerExit] = []
    deadline = time.monotonic() + 10
    while len(exited) < count:
        assert time.monotonic() < deadline, "they never end"
        exited += workers.wait(0.05)
    return exited


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def python(tmp_path: Path) -> Path:
    return make_trainer(tmp_path / "trainer", works=True) / "bin" / "python"


@pytest.fixture
def fresh(python: Path, tmp_path: Path) -> FreshWorkers:
    return FreshWorkers(python, tmp_path / "store", {"SAID": "hello"})


@pytest.fixture
def warm(python: Path, tmp_path: Path) -> Iterator[WarmWorkers]:
    workers = WarmWorkers(python, tmp_path / "store", {"SAID": "hello"})
    yield workers
    workers.close()


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the test's own for trainers, with a name that is short enough."""
    with tempfile.TemporaryDirectory(prefix="axosweep-", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name) / "axosweep"


@pytest.fixture(params=["fresh", "warm"])
def workers(request: pytest.FixtureRequest) -> Workers:
    found: Workers = request.getfixturevalue(request.param)
    return found


def test_a_worker_is_given_its_step_its_store_and_the_environment(workers: Workers, tmp_path: Path) -> None:
    workers.start(step("one", sees=str(tmp_path / "seen.json")))
    ended(workers, 1)
    seen = json.loads((tmp_path / "seen.json").read_text())
    script, entry, *arguments = seen["argv"]
    assert Path(script) == RUN
    assert entry in ("worker", "preloaded-trainer")
    assert arguments[:2] == ["--store", str(tmp_path / "store")]
    assert seen["said"] == "hello"


def test_a_worker_leads_a_session_of_its_own_and_its_pid_is_known(workers: Workers, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    workers.start(step("one", sees=str(seen), seconds=60))
    wait_until(lambda: workers.wait(0.01) == [] and seen.exists() and workers.pid(this("one")))
    written = json.loads(seen.read_text())
    assert written["pid"] == written["session"] == workers.pid(this("one"))
    assert written["session"] != os.getsid(0)
    workers.signal(this("one"), signal.SIGTERM)
    assert ended(workers, 1) == [WorkerExit(this("one"), -signal.SIGTERM, written["pid"])]
    assert workers.pid(this("one")) is None


def test_each_worker_is_reported_once_with_its_exit_code(workers: Workers) -> None:
    for key, code in (("good", 0), ("bad", 1), ("busy", 75)):
        workers.start(step(key, code=code))
    assert {(one.step, one.code) for one in ended(workers, 3)} == {
        (this("good"), 0),
        (this("bad"), 1),
        (this("busy"), 75),
    }
    assert workers.wait(0) == []


def test_a_signal_reaches_all_that_a_worker_started(workers: Workers, tmp_path: Path) -> None:
    child = tmp_path / "child"
    workers.start(step("one", child=str(child), seconds=60))
    wait_until(lambda: workers.wait(0.01) == [] and child.exists() and child.read_text() and workers.pid(this("one")))
    workers.start(step("other"))
    workers.signal(this("one"), signal.SIGTERM)
    codes = {one.step: one.code for one in ended(workers, 2)}
    assert codes == {this("one"): -signal.SIGTERM, this("other"): 0}
    wait_until(lambda: not is_running(int(child.read_text())))


def test_a_worker_that_does_not_hear_sigterm_is_killed(workers: Workers, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    workers.start(step("one", deaf=True, sees=str(seen), seconds=60))
    wait_until(lambda: workers.wait(0.01) == [] and seen.exists() and workers.pid(this("one")))
    workers.signal(this("one"), signal.SIGTERM)
    assert workers.wait(0.05) == []
    workers.signal(this("one"), signal.SIGKILL)
    assert [one.code for one in ended(workers, 1)] == [-signal.SIGKILL]


def test_a_signal_to_a_worker_that_has_ended_does_nothing(workers: Workers) -> None:
    workers.start(step("one"))
    ended(workers, 1)
    workers.signal(this("one"), signal.SIGKILL)


def test_closing_leaves_a_worker_at_its_work(workers: Workers, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    workers.start(step("one", sees=str(seen), seconds=60))
    wait_until(lambda: workers.wait(0.01) == [] and seen.exists() and workers.pid(this("one")))
    pid = workers.pid(this("one"))
    assert pid is not None
    workers.close()
    try:
        assert is_running(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_waiting_without_workers_takes_its_time(workers: Workers) -> None:
    began = time.monotonic()
    assert workers.wait(0.05) == []
    assert time.monotonic() - began >= 0.05


def test_how_a_fresh_worker_was_killed_is_noted_in_its_attempt(fresh: FreshWorkers, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    fresh.start(step("one", seconds=60))
    attempt = store.folder(*this("one")).attempt(1)
    attempt.path.mkdir(parents=True)
    attempt.started.write_text(json.dumps({"pid": fresh.pid(this("one"))}))
    fresh.signal(this("one"), signal.SIGKILL)
    ended(fresh, 1)
    assert json.loads(attempt.exit.read_text())["code"] == -signal.SIGKILL


def test_a_fresh_worker_ends_also_if_that_cannot_be_noted(fresh: FreshWorkers, tmp_path: Path) -> None:
    """A full disk may be what has ended it, and there are other workers."""
    attempt = Store(tmp_path / "store").folder(*this("one")).attempt(1)
    attempt.exit.mkdir(parents=True)
    fresh.start(step("one", seconds=60))
    attempt.started.write_text(json.dumps({"pid": fresh.pid(this("one"))}))
    fresh.signal(this("one"), signal.SIGKILL)
    assert [one.code for one in ended(fresh, 1)] == [-signal.SIGKILL]


def test_one_preloaded_process_serves_every_step_and_says_what_it_says_to_a_file(
    warm: WarmWorkers, tmp_path: Path
) -> None:
    for key in ("one", "two"):
        warm.start(step(key))
        ended(warm, 1)
    assert warm.log is not None
    assert warm.log.read_text() == "imported\n"


def test_steps_of_a_preloaded_process_that_dies_are_reported_without_a_code(warm: WarmWorkers, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    warm.start(step("forked", sees=str(seen), seconds=60))
    wait_until(lambda: warm.wait(0.01) == [] and seen.exists() and warm.pid(this("forked")))
    pid = warm.pid(this("forked"))
    assert pid is not None
    log = warm.log
    warm.start(step("fatal", ends_all=True))
    try:
        lost = {WorkerExit(this("forked"), None, pid, log), WorkerExit(this("fatal"), None, None, log)}
        assert set(ended(warm, 2)) == lost
        assert is_running(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_a_preloaded_process_that_died_is_replaced(warm: WarmWorkers) -> None:
    warm.start(step("fatal", ends_all=True))
    ended(warm, 1)
    warm.start(step("next", code=5))
    assert [(one.step, one.code) for one in ended(warm, 1)] == [(this("next"), 5)]


def test_a_preloaded_process_that_died_with_nothing_to_do_is_replaced(warm: WarmWorkers) -> None:
    warm.start(step("one"))
    ended(warm, 1)
    process = process_of(warm)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    warm.start(step("next", code=5))
    assert [(one.step, one.code) for one in ended(warm, 1)] == [(this("next"), 5)]


def process_of(workers: WarmWorkers) -> subprocess.Popen[bytes]:
    assert workers._reached is not None
    assert workers._reached.process is not None
    return workers._reached.process


@pytest.mark.parametrize("importing", ["0", "60"])
def test_closing_ends_a_preloaded_process_that_was_not_used(
    python: Path, tmp_path: Path, importing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that was sent but has not begun must not begin after the launcher has ended."""
    monkeypatch.setenv("PYTHON_IMPORTING", importing)
    workers = WarmWorkers(python, tmp_path, {}, idle_s=60)
    if importing == "0":
        workers.warm_up()
    else:
        workers.start(step("one", sees=str(tmp_path / "seen.json")))
    pid = process_of(workers).pid
    workers.close()
    wait_until(lambda: not is_running(pid))
    assert not (tmp_path / "seen.json").exists()


def test_a_worker_keeps_the_locks_of_its_cards_until_it_is_killed(fresh: FreshWorkers, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    with (tmp_path / "card").open("w") as card:
        assert try_lock(card.fileno())
        fresh.start(step("one", sees=str(seen), seconds=60), [card.fileno()])
    with (tmp_path / "card").open() as card:
        assert not try_lock(card.fileno())
        wait_until(seen.exists)
        fresh.signal(this("one"), signal.SIGKILL)
        ended(fresh, 1)
        assert try_lock(card.fileno())


def test_the_real_worker_takes_the_locks_that_it_inherits(tmp_path: Path) -> None:
    one, store = step("one"), Store(tmp_path)
    fresh = FreshWorkers(Path(sys.executable), tmp_path, {})
    with (tmp_path / "card").open("w") as card, claim(store.folder(one.kind, one.key)):
        fresh.start(one, [card.fileno()])
        assert [exited.code for exited in ended(fresh, 1)] == [EXIT_HELD]


@pytest.fixture
def mixed(warm: WarmWorkers, python: Path, tmp_path: Path) -> tuple[MixedWorkers, list[str]]:
    said: list[str] = []
    fresh = FreshWorkers(python, tmp_path / "store", {})
    return MixedWorkers(warm, fresh, said.append), said


def entry_of(seen: Path) -> str:
    return str(json.loads(seen.read_text())["argv"][1])


def test_a_config_with_plugins_runs_in_a_new_process_next_to_forks_and_that_is_printed_once(
    mixed: tuple[MixedWorkers, list[str]], tmp_path: Path
) -> None:
    workers, said = mixed
    for key, config in (("plain", {}), ("one", {"plugins": ["my.Plugin"]}), ("two", {"plugins": ["my.Plugin"]})):
        workers.start(step(key, sees=str(tmp_path / key), seconds=0.2, **config))
    assert {one.code for one in ended(workers, 3)} == {0}
    assert [entry_of(tmp_path / key) for key in ("plain", "one", "two")] == ["preloaded-trainer", "worker", "worker"]
    (line,) = said
    assert "plugins (my.Plugin)" in line


@pytest.mark.parametrize(("axolotl", "all_tools", "forked"), [("0", "0", False), ("0", "1", True), ("true", "0", True)])
def test_a_run_that_axolotl_may_tell_of_is_not_forked_since_its_threads_would_be_missing(
    mixed: tuple[MixedWorkers, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    axolotl: str,
    all_tools: str,
    forked: bool,
) -> None:
    monkeypatch.setenv("AXOLOTL_DO_NOT_TRACK", axolotl)
    monkeypatch.setenv("DO_NOT_TRACK", all_tools)
    workers, said = mixed
    workers.start(step("one", sees=str(tmp_path / "one"), seconds=0.2))
    assert {one.code for one in ended(workers, 1)} == {0}
    assert entry_of(tmp_path / "one") == ("preloaded-trainer" if forked else "worker")
    assert [("telemetry" in line) for line in said] == ([] if forked else [True])


def test_what_a_process_with_cuda_awake_refuses_is_started_fresh(
    mixed: tuple[MixedWorkers, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_WOKEN", "1")
    workers, said = mixed
    workers.start(step("one", sees=str(tmp_path / "one")))
    assert [(exited.step, exited.code) for exited in ended(workers, 1)] == [(this("one"), 0)]
    workers.start(step("two", sees=str(tmp_path / "two")))
    assert {exited.code for exited in ended(workers, 1)} == {0}
    assert {entry_of(tmp_path / key) for key in ("one", "two")} == {"worker"}
    assert said == ["Started fresh, not forked from a preloaded trainer: an import has initialized CUDA."]


def test_a_folder_for_sockets_that_others_can_enter_is_not_used(
    mixed: tuple[MixedWorkers, list[str]], sockets: Path
) -> None:
    sockets.mkdir(mode=0o755)
    sockets.chmod(0o755)
    workers, said = mixed
    workers.start(step("one", code=5))
    assert [one.code for one in ended(workers, 1)] == [5]
    assert "only you can enter" in said[0]
