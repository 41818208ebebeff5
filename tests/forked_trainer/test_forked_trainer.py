"""Trainers and commands of the tests are forks: such a process equals one that `subprocess` would start, except for its
imports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.environment import trainer_environment
from tests.forked_trainer import popen

pytestmark = pytest.mark.slow
SCRIPT = Path(popen.__file__).with_name("inherited_script.py")


TRAINER = "modal_app/run.py"
OF_WANDB = popen.WANDB[1]
NOOP = popen.NOOP[0]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the script has the names of programs that are started as forks."""
    folder = tmp_path_factory.mktemp("programs")
    for name in (TRAINER, popen.COMMAND, OF_WANDB, NOOP):
        (folder / name).parent.mkdir(parents=True)
        shutil.copy(SCRIPT, folder / name)
    return folder


def answer(
    program: Path, folder: Path, kind: Callable[..., subprocess.Popen[str]], *words: str, python: str = "", **more: str
) -> tuple[int, dict[str, object]]:
    passed, other = os.pipe()
    variables = {
        **os.environ,
        "OWN": "value",
        "HF_ENDPOINT": "http://127.0.0.1:9/",
        "HF_HOME": str(folder / "home"),
        "TMPDIR": str(folder),
        **more,
    }
    has_axolotl = program.match(TRAINER) and not program.match(NOOP)
    python = python or (str(trainer_environment.find()) if has_axolotl else sys.executable)
    process = kind(
        [python, str(program), "worker", *words], text=True, cwd=folder, env=variables, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, start_new_session=True, pass_fds=[passed],
    )  # fmt: skip
    os.close(passed)
    os.close(other)
    printed, _ = process.communicate("given", timeout=120)
    return process.returncode, json.loads(printed)


@pytest.mark.parametrize(
    ("name", "words"),
    [(TRAINER, ()), (TRAINER, ("ranks",)), (popen.COMMAND, ()), (OF_WANDB, ()), (NOOP, ())],
    ids=["a worker", "a rank, which is a child of its worker", "a command", "what talks to W&B", "no real worker"],
)
def test_a_fork_is_the_process_that_would_have_been_started_but_for_its_imports(
    programs: Path, tmp_path: Path, name: str, words: tuple[str, ...]
) -> None:
    program, more = programs / name, {"NOOP_TRAIN_S": "0"} if name == NOOP else {}
    answer(program, tmp_path, popen.ForkingPopen, **more)  # the first of an environment may be a process of its own
    code, forked = answer(program, tmp_path, popen.ForkingPopen, *words, **more)
    expected_code, expected = answer(program, tmp_path, popen.RealPopen, *words, **more)
    assert forked["is a child"] == bool(words)
    assert (forked.pop("imported"), expected.pop("imported")) == (True, False)
    assert code == expected_code
    for one, value in expected.items():
        assert forked[one] == value, one


@pytest.mark.parametrize("name", [TRAINER, NOOP])
def test_a_trainer_of_the_launchers_python_that_does_something_is_a_process_of_its_own(
    programs: Path, tmp_path: Path, name: str
) -> None:
    """Such as one that kills the process that has started it, in a test."""
    answer(programs / NOOP, tmp_path, popen.ForkingPopen, NOOP_TRAIN_S="0")
    _, started = answer(programs / name, tmp_path, popen.ForkingPopen, python=sys.executable)
    assert not started["imported"]


def test_a_fork_is_signalled_and_waited_for_like_a_child(programs: Path, tmp_path: Path) -> None:
    program = programs / TRAINER
    answer(program, tmp_path, popen.ForkingPopen)
    process = popen.ForkingPopen(
        [str(trainer_environment.find()), str(program), "worker"], stdin=subprocess.PIPE, cwd=tmp_path,
    )  # fmt: skip
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert process.poll() == -signal.SIGKILL
