"""How a container watches its worker, which is a real process here: its limits hold whatever else hangs."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from modal_app.cloud.aside import Aside
from modal_app.cloud.container import DEAD_S, FIRST_TICK_S, Limits, Watch, WorkerExit, watched

HANGS_S = 30.0
PTRACE_SEIZE = 0x4206


class Superseded(BaseException):
    """As a tick raises it to stop the worker."""


@contextmanager
def worker(command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(["sh", "-c", command], start_new_session=True, text=True)
    yield process
    process.kill()
    process.wait()


def watch(process: subprocess.Popen[str], stop_s: float, kill_s: float, tick: Callable[[], None]) -> WorkerExit:
    now = time.monotonic()
    return watched(process, Watch(tick, lambda request: None, Limits(now + stop_s, now + kill_s)))


@pytest.mark.slow
def test_a_worker_is_stopped_at_its_limit_though_a_request_to_modal_gets_no_answer() -> None:
    began, answer = time.monotonic(), threading.Event()

    def look() -> None:
        answer.wait(HANGS_S)

    with worker(f"exec sleep {HANGS_S}") as process:
        ended = watch(process, FIRST_TICK_S + 0.1, FIRST_TICK_S + 10, look)
    assert (ended.code, ended.out_of_time) == (-signal.SIGTERM, True)
    assert time.monotonic() - began < HANGS_S / 2
    answer.set()


@contextmanager
def never_reaped(pid: int) -> Iterator[None]:
    """Trace a process, so that its end is not reported to its parent while the block runs: for the parent, it is like
    one that hangs in a driver."""
    ready, ready_now = os.pipe()
    if (tracer := os.fork()) == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        os.write(ready_now, b"0" if libc.ptrace(PTRACE_SEIZE, pid, None, None) else b"1")
        time.sleep(HANGS_S)
        os._exit(0)
    try:
        if os.read(ready, 1) == b"0":
            pytest.skip("processes cannot be traced here")
        yield
    finally:
        os.kill(tracer, signal.SIGKILL)
        os.waitpid(tracer, 0)
        os.close(ready)
        os.close(ready_now)


def test_a_worker_that_cannot_even_be_killed_is_not_waited_for() -> None:
    began = time.monotonic()
    with worker(f"trap '' TERM; echo; exec sleep {HANGS_S}") as process, never_reaped(process.pid):
        ended = watch(process, 0.1, 0.2, lambda: None)
        assert ended.code == -signal.SIGKILL
        assert DEAD_S <= time.monotonic() - began < HANGS_S / 2


def test_what_a_function_raises_aside_is_raised_though_it_took_long() -> None:
    over = threading.Event()

    def fail() -> None:
        over.wait(HANGS_S)
        raise Superseded

    aside = Aside(fail, longest_s=0.05)
    aside()
    over.set()
    with pytest.raises(Superseded):
        aside()
