"""A process that ran out of memory is reported as such, whether an error says so or the kernel has killed it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modal_app.process.failures import classify
from modal_app.store import state
from modal_app.store.layout import Store
from modal_app.store.out_of_memory import EXIT_CODE, KillCount
from modal_app.store.sources import RUN
from modal_app.store.step import FailureReason, StepKind
from runner.executors.workers import could_not_ask
from tests.runner.builders import begin_attempt

ALLOCATOR = "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError(ALLOCATOR),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_an_error_for_want_of_memory_is_called_that(error: Exception) -> None:
    failure = classify(error, "load")
    assert failure.reason is FailureReason.OOM
    assert "memory" in failure.message


def groups(folder: Path, *, version: int, kills: int) -> KillCount:
    """A count of kills from control groups in a folder."""
    (folder / "groups").write_text("0::/mine\n" if version == 2 else "4:memory:/mine\n0::/\n")
    return KillCount(folder, folder / "groups")


@pytest.mark.parametrize(("version", "name"), [(2, "mine/memory.events"), (1, "memory/memory.oom_control")])
def test_the_kernels_count_tells_its_kills_from_others(tmp_path: Path, version: int, name: str) -> None:
    counter = tmp_path / name
    counter.parent.mkdir(parents=True)
    counter.write_text("under_oom 0\noom_kill 3\n")
    counted = groups(tmp_path, version=version, kills=3)
    assert counted.take() is False, "the three were before"
    counter.write_text("under_oom 0\noom_kill 4\n")
    assert [counted.take(), counted.take()] == [True, False], "each kill has one victim"
    counter.unlink()
    assert counted.take() is None


def test_a_run_that_the_kernel_killed_for_memory_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for key, out_of_memory in (("killed", True), ("by-hand", False), ("unknown", None)):
        attempt = begin_attempt(store, StepKind.TRAIN, key)
        attempt.exit.write_text(json.dumps({"pid": 1, "code": -9, "at": 2.0, "out_of_memory": out_of_memory}))
    ended = {key: state.observe(store, StepKind.TRAIN, key).outcome for key in ("killed", "by-hand", "unknown")}
    seen = {key: (one.reason, one.message) for key, one in ended.items() if one is not None}
    assert seen == {
        "killed": (FailureReason.OOM, "its process ran out of memory, so the kernel killed it (signal 9)"),
        "by-hand": (FailureReason.LOST, "its process was killed by signal 9"),
        "unknown": (FailureReason.LOST, "its process was killed by signal 9; it may have run out of memory"),
    }


def test_a_validator_that_was_killed_for_memory_is_named_as_such(tmp_path: Path) -> None:
    counter = tmp_path / "mine" / "memory.events"
    counter.parent.mkdir()
    counter.write_text("oom_kill 0\n")
    counted = groups(tmp_path, version=2, kills=0)
    counter.write_text("oom_kill 1\n")
    log = tmp_path / "log.txt"
    log.write_text("importing\n")
    assert "the trainer ran out of memory, so the kernel killed it" in str(could_not_ask(-signal.SIGKILL, log, counted))
    assert "the trainer was killed by signal 9 before" in str(could_not_ask(-signal.SIGKILL, log, counted))
    assert "the trainer ran out of memory before" in str(could_not_ask(EXIT_CODE, log, counted))
    assert "the trainer ended (code 7) before" in str(could_not_ask(7, log, counted))


def test_a_process_of_the_trainer_ends_with_a_code_that_means_out_of_memory(tmp_path: Path) -> None:
    (tmp_path / "questions.json").write_text("[]")
    (tmp_path / "axolotl.py").write_text("raise MemoryError")
    ended = subprocess.run(
        [sys.executable, RUN, "validate", tmp_path],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == EXIT_CODE, ended.stderr
    assert "MemoryError" in ended.stderr
