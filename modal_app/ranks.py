"""Several data-parallel ranks of one step on this machine, in the process group of the worker that claimed it.

Torch's elastic agent is not used: on SIGTERM it ends its ranks itself, and a rank must live to save its checkpoint.
Here the ranks get the group's signal, agree on a step, and the parent waits.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from modal_app import stop
from modal_app.attempt import redirect
from modal_app.failures import Failure
from modal_app.layout import Attempt
from modal_app.step import FailureReason

GRACE_S = 30.0
"""How long the others may go on once a rank has failed."""


class RankFailed(Exception):
    """A rank's own account of its failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def run(count: int, attempt: Attempt, claim: int, forked: Callable[[], int] | None) -> None:
    """Run `count` ranks to their end: forks of this process that call `forked`, or fresh ones.

    They share the claim: the step is held until the last of them is gone. Raises RankFailed.
    """
    stop.answer(None)
    environments = _environments(count)
    shared = os.dup(claim)
    if forked is None:
        pids = [_spawn(environment, attempt, shared) for environment in environments]
    else:
        pids = [_fork(environment, attempt, forked) for environment in environments]
    os.close(shared)
    codes = _wait(pids)
    if stop.requested() or not any(codes):
        return
    raise RankFailed(_first_failure(attempt, codes))


def failure_file(attempt: Path, rank: int) -> Path:
    return attempt / f"failure-{rank}.json"


def log_of_rank(attempt: Attempt, rank: int) -> Path:
    return attempt.log if rank == 0 else attempt.path / f"log-{rank}.txt"


def _environments(count: int) -> list[dict[str, str]]:
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(_free_port())}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _free_port() -> int:
    """A port below the range that the kernel hands out by itself, so that nobody gets it in the meantime by chance."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def _fork(environment: dict[str, str], attempt: Attempt, entry: Callable[[], int]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        stop.end_with_parent(signal.SIGTERM)
        os.environ.update(environment)
        redirect(log_of_rank(attempt, int(environment["RANK"])))
        code = entry()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _spawn(environment: dict[str, str], attempt: Attempt, claim: int) -> int:
    with log_of_rank(attempt, int(environment["RANK"])).open("a") as log:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py")), "--rank", str(attempt.path)],
            cwd=attempt.path,
            env=dict(os.environ) | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(claim,),
        )
    process.returncode = 0  # reaped below, by its id
    return process.pid


def _wait(pids: list[int]) -> list[int]:
    """Their exit codes, a negative one for a signal. One failure, or a request to stop, is passed on to the others."""
    codes: dict[int, int] = {}
    told, deadline = False, float("inf")
    while len(codes) < len(pids):
        for pid in set(pids) - set(codes):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                codes[pid] = os.waitstatus_to_exitcode(status)
        if any(codes.values()):
            deadline = min(deadline, time.monotonic() + GRACE_S)
        alive = set(pids) - set(codes)
        if stop.requested() and not told:
            told = True
            _signal(alive, signal.SIGTERM)
        if time.monotonic() > deadline:
            _signal(alive, signal.SIGKILL)
        time.sleep(0.02)
    return [codes[pid] for pid in pids]


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)  # ours, and not reaped yet: it exists


def _first_failure(attempt: Attempt, codes: list[int]) -> Failure:
    """The earliest account: the others usually fail because that rank is gone."""
    accounts = [failure_file(attempt.path, rank) for rank in range(len(codes))]
    told = sorted((path for path in accounts if path.exists()), key=lambda path: path.stat().st_mtime)
    killed = [(rank, -code) for rank, code in enumerate(codes) if code == -signal.SIGKILL]
    if killed and not told:
        return Failure(FailureReason.LOST, f"rank {killed[0][0]} was killed by signal 9; it may have run out of memory")
    if told:
        return Failure.from_json(told[0].read_text(encoding="utf-8"))
    return Failure(FailureReason.ERROR, f"the ranks ended with codes {codes} and gave no reason")
