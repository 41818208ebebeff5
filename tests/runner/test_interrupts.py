"""Requests to stop, as signals."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from runner.console import interrupts
from runner.console.interrupts import further_requests, terminate_as_interrupt


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that the test sets, so that no test waits."""
    now = [0.0]
    monkeypatch.setattr(interrupts, "_requests", interrupts.Requests(lambda: now[0]))
    return now


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_a_thread_other_than_the_main_one_sets_no_handlers() -> None:
    """Python allows it in the main thread only; a notebook may launch a sweep in another one."""

    def handlers() -> list[object]:
        with terminate_as_interrupt(), further_requests() as further:
            return [further(), *map(signal.getsignal, interrupts.NUMBERS)]

    with ThreadPoolExecutor() as pool:
        assert pool.submit(handlers).result() == [False, *map(signal.getsignal, interrupts.NUMBERS)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_interrupts_and_one_right_after_it_is_the_same(number: signal.Signals, later: list[float]) -> None:
    """timeout(1) sends SIGTERM to its child, and then to the child's group."""
    with terminate_as_interrupt():
        with pytest.raises(KeyboardInterrupt):
            send(number)
        send(number)
        with further_requests() as further:
            send(signal.SIGTERM)
            assert not further()
            later[0] = 2.0
            assert not further()
            send(signal.SIGINT)
            assert further()


def test_what_a_shell_has_set_to_be_ignored_is_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with terminate_as_interrupt(), further_requests() as further:
            send(signal.SIGINT)
            assert not further()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
