"""Real processes, with a stand-in for the trainer's Python: it is started as the real one and speaks its protocol."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modal_app.layout import Store
from modal_app.step import Step, StepKind
from runner.executors.workers import Exited, FreshWorkers, WarmWorkers, Workers
from runner.types import StepId

BODY = """
import json, os, pathlib, select, signal, subprocess, sys, time

def work(step):
    config = step["config"]
    if config.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if config.get("child"):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        pathlib.Path(config["child"]).write_text(str(child.pid))
    if config.get("sees"):
        seen = {"argv": sys.argv[1:], "pid": os.getpid(), "session": os.getsid(0), "said": os.environ.get("SAID")}
        said = pathlib.Path(config["sees"])
        said.with_suffix(".part").write_text(json.dumps(seen))
        said.with_suffix(".part").rename(said)
    time.sleep(config.get("seconds", 0))
    return config.get("code", 0)
"""
FRESH = BODY + "\nsys.exit(work(json.loads(sys.stdin.read())))\n"
WARM = (
    BODY
    + """
def say(**event):
    print(json.dumps(event), flush=True)

time.sleep(float(os.environ.get("IMPORTING", 0)))
print("imported", file=sys.stderr, flush=True)
say(event="ready", seconds=0.1)
children = {}
open_ = True
while open_ or children:
    if open_ and select.select([0], [], [], 0.01)[0]:
        line = os.read(0, 1 << 16)
        open_ = bool(line)
        for one in line.splitlines():
            step = json.loads(one)["step"]
            if step["config"].get("ends_all"):
                os._exit(3)
            pid = os.fork()
            if not pid:
                os.setsid()
                nothing = os.open(os.devnull, os.O_RDWR)  # the launcher's pipes are not the child's
                os.dup2(nothing, 0)
                os.dup2(nothing, 1)
                os._exit(work(step))
            children[pid] = step
            say(event="started", kind=step["kind"], key=step["key"], pid=pid)
    for pid in list(children):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            step = children.pop(pid)
            say(event="exited", kind=step["kind"], key=step["key"], pid=pid, code=os.waitstatus_to_exitcode(status))
"""
)


def stand_in(path: Path, body: str) -> Path:
    path.write_text(f"#!{sys.executable} -S\n{body}")
    path.chmod(0o755)
    return path


def step(key: str, **config: object) -> Step:
    return Step(StepKind.TRAIN, key, config, data_key="data")


def this(key: str) -> StepId:
    return (StepKind.TRAIN, key)


def until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def ended(workers: Workers, count: int) -> list[Exited]:
    exited: list[Exited] = []
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
def fresh(tmp_path: Path) -> FreshWorkers:
    return FreshWorkers(stand_in(tmp_path / "python", FRESH), tmp_path / "store", {"SAID": "hello"})


@pytest.fixture
def warm(tmp_path: Path) -> Iterator[WarmWorkers]:
    python = stand_in(tmp_path / "python", WARM)
    workers = WarmWorkers(python, tmp_path / "store", {"SAID": "hello"}, tmp_path / "logs" / "warm.log")
    yield workers
    workers.close()


@pytest.fixture(params=["fresh", "warm"])
def workers(request: pytest.FixtureRequest) -> Workers:
    found: Workers = request.getfixturevalue(request.param)
    return found


def test_a_worker_is_given_its_step_its_store_and_the_environment(workers: Workers, tmp_path: Path) -> None:
    workers.start(step("one", sees=str(tmp_path / "seen.json")))
    ended(workers, 1)
    seen = json.loads((tmp_path / "seen.json").read_text())
    script, *arguments = seen["argv"]
    assert Path(script).name in ("worker.py", "warm.py")
    assert Path(script).is_file()
    assert arguments == ["--store", str(tmp_path / "store")]
    assert seen["said"] == "hello"


def test_a_worker_leads_a_session_of_its_own_and_its_pid_is_known(workers: Workers, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    workers.start(step("one", sees=str(seen), seconds=60))
    until(lambda: workers.wait(0.01) == [] and seen.exists() and workers.pid(this("one")))
    written = json.loads(seen.read_text())
    assert written["pid"] == written["session"] == workers.pid(this("one"))
    assert written["session"] != os.getsid(0)
    workers.signal(this("one"), signal.SIGTERM)
    assert ended(workers, 1) == [Exited(this("one"), -signal.SIGTERM, written["pid"])]
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
    until(lambda: workers.wait(0.01) == [] and child.exists() and child.read_text() and workers.pid(this("one")))
    workers.start(step("other"))
    workers.signal(this("one"), signal.SIGTERM)
    codes = {one.step: one.code for one in ended(workers, 2)}
    assert codes == {this("one"): -signal.SIGTERM, this("other"): 0}
    until(lambda: not is_running(int(child.read_text())))


def test_a_worker_that_does_not_hear_sigterm_is_killed(workers: Workers, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    workers.start(step("one", deaf=True, sees=str(seen), seconds=60))
    until(lambda: workers.wait(0.01) == [] and seen.exists() and workers.pid(this("one")))
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
    until(lambda: workers.wait(0.01) == [] and seen.exists() and workers.pid(this("one")))
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


def test_one_preloaded_process_serves_every_step_and_says_what_it_says_to_a_file(
    warm: WarmWorkers, tmp_path: Path
) -> None:
    for key in ("one", "two"):
        warm.start(step(key))
        ended(warm, 1)
    assert warm.log.read_text() == "imported\n"


def test_steps_of_a_preloaded_process_that_dies_are_reported_without_a_code(warm: WarmWorkers, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    warm.start(step("forked", sees=str(seen), seconds=60))
    until(lambda: warm.wait(0.01) == [] and seen.exists() and warm.pid(this("forked")))
    pid = warm.pid(this("forked"))
    assert pid is not None
    warm.start(step("fatal", ends_all=True))
    try:
        lost = {Exited(this("forked"), None, pid, warm.log), Exited(this("fatal"), None, None, warm.log)}
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
    assert warm._process is not None
    os.kill(warm._process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, warm._process.pid, os.WEXITED | os.WNOWAIT)
    warm.start(step("next", code=5))
    assert [(one.step, one.code) for one in ended(warm, 1)] == [(this("next"), 5)]


@pytest.mark.parametrize("importing", ["0", "60"])
def test_closing_ends_a_preloaded_process_that_is_idle_or_still_importing(tmp_path: Path, importing: str) -> None:
    """What was handed over and not begun must not begin after the launcher has gone."""
    python = stand_in(tmp_path / "python", WARM)
    workers = WarmWorkers(python, tmp_path, {"IMPORTING": importing}, tmp_path / "warm.log")
    workers.start(step("one", sees=str(tmp_path / "seen.json")))
    if importing == "0":
        ended(workers, 1)
    assert workers._process is not None
    pid = workers._process.pid
    workers.close()
    assert not is_running(pid)
    assert (tmp_path / "seen.json").exists() is (importing == "0")
