"""`axosweep cancel` of a sweep also ends its follow-up steps: their launcher, and steps of the base model."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from modal_app.cloud.job import steps_file
from modal_app.store.layout import STEPS, Store
from modal_app.store.state import observe
from modal_app.store.step import FailureReason, OutcomeStatus, Step, StepKind, write_atomically
from runner.command.cancel import cancel
from tests.runner.builders import open_sweep, run

SCRIPT = str(Path(__file__).with_name("lasting_process_script.py"))


@contextmanager
def process(store: Store, role: str, about: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has begun, and runs until it is killed."""
    command = [sys.executable, SCRIPT, str(store.root), role, about]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as started:
        try:
            assert started.stdout
            assert started.stdout.readline() == "ready\n"
            yield started
        finally:
            started.kill()


@pytest.fixture
def follow_up(store: Store) -> tuple[str, str]:
    """A sweep, and a follow-up step of its base model."""
    sweep = open_sweep(store, [run({"learning_rate": 0.1})], "swept").sweep
    (store.sweeps / sweep / "records.jsonl").write_text("")
    name = f"{sweep}/after-0a1b2c"
    (store.sweeps / name).mkdir()
    step = Step(StepKind.INFER, "base/abc", {}, "d", sweep=name)
    write_atomically(store.sweeps / name / STEPS, steps_file({"infer/base/abc": step}, {}))
    return sweep, name


def test_follow_up_steps_of_a_sweep_are_ended_with_it(store: Store, follow_up: tuple[str, str]) -> None:
    sweep, name = follow_up
    with process(store, "launcher", name) as launcher:
        assert cancel(store, [], None) == 0
        assert launcher.poll() is None, "no sweep was named"
        assert cancel(store, [], sweep) == 1
        assert launcher.wait(10) < 0


def test_a_worker_has_the_time_that_it_needs_and_a_second_cancel_kills_it(
    store: Store, follow_up: tuple[str, str]
) -> None:
    with process(store, "deaf", "base/abc") as worker, ThreadPoolExecutor() as pool:
        (attempt,) = store.folder(StepKind.INFER, "base/abc").attempts()
        first = pool.submit(cancel, store, [], follow_up[0])
        while not attempt.stop.exists():
            time.sleep(0.01)
        with pytest.raises(TimeoutError):
            first.result(0.3)
        assert worker.poll() is None
        assert cancel(store, [], follow_up[0]) == 1
        assert worker.wait(10) == -signal.SIGKILL
        assert first.result(10) == 1
    outcome = observe(store, StepKind.INFER, "base/abc").outcome
    assert outcome is not None
    assert (outcome.status, outcome.reason) == (OutcomeStatus.STOPPED, FailureReason.KILLED)
    assert outcome.message == "killed by axosweep cancel, which asked a second time"


def test_what_a_sweep_asks_of_its_base_model_is_ended_with_it(store: Store, follow_up: tuple[str, str]) -> None:
    with process(store, "worker", "base/abc") as worker, process(store, "worker", "base/other") as other:
        assert cancel(store, [], None) == 0
        assert cancel(store, [], follow_up[0]) == 1
        assert worker.wait(10) < 0
        assert other.poll() is None, "another sweep's"
