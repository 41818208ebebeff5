"""A fork of the preloaded trainer is as good as a new process, and the trainer survives whatever happens to a fork."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from modal_app.serving import server
from modal_app.serving.spec import Serving
from modal_app.store.layout import Store
from modal_app.store.sources import RUN
from modal_app.store.state import Phase, observe
from modal_app.store.step import StepKind
from tests.modal_app.hollow_trainer import found, probing, serving
from tests.modal_app.steps import Warm, alive
from tests.waiting import wait_until

LOOK = Path(__file__).with_name("look_probe.py").read_text()
DRAW = Path(__file__).with_name("random_probe.py").read_text()
SLEEP = "import time; open('here', 'w'); time.sleep({})"


def fresh(python: Path, store: Store, key: str, probe: str, environment: Mapping[str, str]) -> None:
    command: list[str | Path] = [python, RUN, "worker", "--store", store.root]
    step = probing(key, probe).to_json()
    subprocess.run(command, input=step, text=True, env=environment, check=False, capture_output=True)


def began(store: Store, key: str) -> bool:
    return any((attempt.path / "here").exists() for attempt in store.folder(StepKind.TRAIN, key).attempts())


def test_a_fork_finds_what_a_fresh_process_of_its_command_would(
    python: Path, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command differs in every possible way from the one that started the server."""
    with serving(python, store, TORCH_GONE="yes", TZ="UTC") as server:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        monkeypatch.chdir(elsewhere)
        variables = {name: value for name, value in os.environ.items() if name != "TERM"}
        variables |= {"HF_TOKEN": "hf_secret", "TMPDIR": str(elsewhere), "TZ": "America/Lima", "HF_HUB_OFFLINE": "0"}
        umask, files = os.umask(0o077), resource.getrlimit(resource.RLIMIT_NOFILE)
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})
        resource.setrlimit(resource.RLIMIT_NOFILE, (files[0] - 1, files[1]))
        try:
            other = Warm.join(server.process, server.here, variables)
            assert other.run(probing("forked", LOOK)) == 1
            fresh(python, store, "fresh", LOOK, variables)
        finally:
            os.umask(umask)
            os.sched_setaffinity(0, cores)
            resource.setrlimit(resource.RLIMIT_NOFILE, files)
    forked, started = found(store, "forked"), found(store, "fresh")
    assert forked.pop("environment") == started.pop("environment")
    for one in (forked, started):  # a new process has read its step from a pipe
        one["descriptors"] = [
            name for name in one["descriptors"] if not name.startswith("pipe:") and name != os.devnull
        ]
    assert forked == started


def test_a_secret_is_in_the_forks_memory_only(python: Path, store: Store) -> None:
    with serving(python, store, HF_TOKEN="hf_very_secret") as server:
        probe = "import json, os; json.dump(os.environ['HF_TOKEN'], open('found.json', 'w'))"
        assert server.run(probing("one", probe)) == 1
        assert found(store, "one") == "hf_very_secret"
        environ = Path(f"/proc/{server.process.pid}/environ").read_bytes()
        assert b"hf_very_secret" not in environ
    for path in (store.folder(StepKind.TRAIN, "one").path, server.here.stem.parent):
        kept = [file for file in path.rglob("*") if file.is_file() and file.name != "found.json"]
        assert not any(b"hf_very_secret" in file.read_bytes() for file in kept)


def test_each_fork_draws_random_numbers_of_its_own(warm: Warm, store: Store) -> None:
    for key in ("one", "two"):
        assert warm.run(probing(key, DRAW)) == 1
    (one, *seeded), (two, *_) = found(store, "one"), found(store, "two")
    assert one != two
    assert seeded == [1, 1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_fork_that_dies_harms_no_other_and_its_end_is_recorded(warm: Warm, store: Store, number: int) -> None:
    neighbour = probing("neighbour", SLEEP.format(60))
    pid = warm.begin(neighbour)
    child = "import os, subprocess; open('child','w').write(str(subprocess.Popen(['sleep', '60']).pid)); "
    victim = probing("victim", child + f"os.kill(os.getpid(), {int(number)})")
    assert warm.run(victim) == -number
    attempt = store.folder(StepKind.TRAIN, "victim").attempts()[-1]
    assert json.loads(attempt.exit.read_text())["code"] == -number
    wait_until(lambda: not alive(int((attempt.path / "child").read_text())), "what it had started is ended, too")
    assert alive(pid)
    assert warm.run(probing("next", "pass")) == 1
    os.kill(pid, signal.SIGKILL)


def test_a_fork_is_killed_before_its_parent_when_memory_runs_out(warm: Warm, store: Store) -> None:
    probe = "import json; json.dump(int(open('/proc/self/oom_score_adj').read()), open('found.json', 'w'))"
    assert warm.run(probing("one", probe)) == 1
    assert found(store, "one") > int(Path(f"/proc/{warm.process.pid}/oom_score_adj").read_text())


def test_forks_of_a_killed_server_go_on_and_keep_no_command_waiting(warm: Warm, store: Store) -> None:
    other = Warm.join(warm.process, warm.here, os.environ)
    step = probing("one", SLEEP.format(1.5))
    pid = warm.begin(step)
    wait_until(lambda: began(store, "one"), "it has begun")
    warm.process.kill()
    for command in (warm, other):
        command.line.settimeout(1)
        assert command.heard.read(1) == b"", "at once, though its fork is alive"
    assert observe(store, StepKind.TRAIN, "one").phase is Phase.RUNNING
    wait_until(lambda: not alive(pid), "its end")
    assert observe(store, StepKind.TRAIN, "one").phase is Phase.FAILED


def test_forks_of_a_command_that_has_gone_go_on_and_their_end_is_noted(warm: Warm, store: Store) -> None:
    other = Warm.join(warm.process, warm.here, os.environ)
    pid = other.begin(probing("one", "import os, time; time.sleep(0.3); os.kill(os.getpid(), 9)"))
    other.leave()
    wait_until(lambda: not alive(pid), "its end")
    attempt = store.folder(StepKind.TRAIN, "one").attempts()[-1]
    wait_until(attempt.exit.exists, "a note of its end")


def test_what_a_command_requested_before_it_ended_is_not_begun(python: Path, store: Store) -> None:
    with serving(python, store) as server:
        os.kill(server.process.pid, signal.SIGSTOP)
        gone = Warm(server.process, server.here, server.line, server.heard)
        gone.say(step=json.loads(probing("one", "pass").to_json()))
        gone.leave()
        os.kill(server.process.pid, signal.SIGCONT)
        assert server.process.wait(timeout=10) == 0, "it was the last one"
    assert not store.folder(StepKind.TRAIN, "one").path.exists()


def test_a_signal_reaches_a_fork_whose_process_the_command_does_not_know_yet(warm: Warm) -> None:
    step = probing("one", SLEEP.format(60))
    warm.say(step=json.loads(step.to_json()))
    warm.say(signal=int(signal.SIGKILL), kind="train", key="one")
    assert warm.end(step) == -signal.SIGKILL


def asked_to_serve(warm: Warm, place: Path) -> tuple[socket.socket, int]:
    """The connection to a fork that serves, and the fork. It has a socket to listen on, but no request yet."""
    with socket.socket(socket.AF_UNIX) as door, socket.create_server(("127.0.0.1", 0)) as listening:
        door.bind(str(place / server.LINE))
        door.listen(1)
        warm.say(serve=str(place))
        line, _ = door.accept()
        socket.send_fds(line, [b"\n"], [listening.fileno()])
    told = json.loads(line.recv(1 << 16))
    assert told["event"] == "forked"
    return line, told["pid"]


@pytest.fixture
def place() -> Iterator[Path]:
    """A server's folder. A socket's name is short."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.mark.parametrize("trainer_dies", [False, True])
def test_a_fork_that_serves_outlives_its_trainer_and_takes_its_folder_along_when_its_line_ends(
    warm: Warm, place: Path, trainer_dies: bool
) -> None:
    line, pid = asked_to_serve(warm, place)
    if trainer_dies:
        warm.process.kill()
        warm.process.wait()
    else:
        warm.leave()  # a command that was killed has no connection to either
    assert alive(pid)
    line.close()
    wait_until(lambda: not alive(pid), "its end")
    assert not place.exists()


def test_the_error_of_a_serving_fork_and_its_end_are_reported(warm: Warm, place: Path) -> None:
    """A command that cannot serve."""
    line, pid = asked_to_serve(warm, place)
    warm.say(status=True)
    assert warm.next("status")["serving"] == [pid]
    line.sendall(Serving("/nowhere", (), 0).to_json().encode() + b"\n")
    with line.makefile() as heard:
        (told,) = map(json.loads, heard)
    assert told["event"] == "failed"
    assert "uvicorn" in told["message"]
    assert warm.next("ended")["code"] == server.EXIT_FAILED
    assert "Traceback" in (place / server.LOG).read_text()


def test_a_fork_does_not_clean_up_what_is_its_parents() -> None:
    """Its exit handlers would remove a temporary folder that the server still uses."""
    script = Path(__file__).with_name("exit_handlers_script.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "True\n", done.stderr


def test_what_cannot_be_understood_is_refused_and_harms_no_other_command(warm: Warm, store: Store) -> None:
    other = Warm.join(warm.process, warm.here, os.environ)
    for nonsense in (b"{\n", b"[]\n", b'{"step": {"kind": "dance"}}\n', b'{"step": 5}\n', b'{"unknown": 1}\n'):
        other.line.sendall(nonsense)
        assert "understand" in other.next("refused")["why"]
    assert warm.run(probing("one", "pass")) == 1


def test_a_server_keeps_no_descriptor_and_no_process_of_what_it_served(warm: Warm, store: Store) -> None:
    assert warm.run(probing("first", "pass")) == 1
    before = len(os.listdir(f"/proc/{warm.process.pid}/fd"))
    for number in range(10):
        other = Warm.join(warm.process, warm.here, os.environ)
        assert other.run(probing(f"run-{number}", "pass")) == 1
        other.leave()
    wait_until(lambda: len(os.listdir(f"/proc/{warm.process.pid}/fd")) == before, "its descriptors are as before")
    children = Path(f"/proc/{warm.process.pid}/task/{warm.process.pid}/children").read_text()
    assert children == ""


def test_a_server_whose_imports_have_woken_cuda_refuses_to_fork(python: Path, store: Store) -> None:
    with serving(python, store, TORCH_WOKEN="1") as server:
        assert "CUDA" in server.next("refused")["why"]


def test_a_server_that_has_to_end_first_finishes_its_commands(warm: Warm, store: Store) -> None:
    pid = warm.begin(probing("one", SLEEP.format(1.5)))
    os.kill(warm.process.pid, signal.SIGTERM)
    wait_until(lambda: not warm.here.socket.exists(), "the server has ended")
    assert alive(pid)
    assert warm.end(probing("one", "")) == 1
    assert warm.run(probing("two", "pass")) == 1
    warm.close()


def test_the_last_words_of_a_command_that_left_at_once_are_heard(warm: Warm) -> None:
    os.kill(warm.process.pid, signal.SIGSTOP)
    warm.say(idle_s=0.4)
    began = time.monotonic()
    warm.leave()  # it sees both together
    os.kill(warm.process.pid, signal.SIGCONT)
    assert warm.process.wait(timeout=10) == 0
    assert time.monotonic() - began > 0.3


def test_a_server_ends_after_its_idle_limit_and_takes_its_files_along(warm: Warm) -> None:
    warm.say(idle_s=0.4)
    other = Warm.join(warm.process, warm.here, os.environ)
    warm.leave()
    time.sleep(0.6)
    other.say(status=True)
    assert other.next("status")["commands"] == 0, "it is there for this one alone"
    began = time.monotonic()
    other.leave()
    assert warm.process.wait(timeout=10) == 0
    assert time.monotonic() - began > 0.3
    assert list(warm.here.stem.parent.glob("warm*")) == []
