"""Several data-parallel ranks of one step on this machine, in the process group of the worker that claimed it.

Torch's elastic agent is not used: on SIGTERM it ends its ranks itself, but a rank has to save its checkpoint first.
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

from modal_app.process import stop
from modal_app.process.attempt import redirect
from modal_app.process.failures import Failure
from modal_app.process.forked import leave
from modal_app.process.rank import Rank
from modal_app.store.layout import Attempt
from modal_app.store.out_of_memory import KillCount
from modal_app.store.sources import RUN
from modal_app.store.state import killed_for
from modal_app.store.step import FailureReason

POLL_S = 0.02
GRACE_S = 30.0
"""How long the others may go on once a rank has failed."""


class RankFailed(Exception):
    """A rank's own account of its failure."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def run(count: int, this: Rank, claim: int, forked: Callable[[], int] | None) -> None:
    """Run `count` ranks of this attempt to their end: forks of this process that call `forked`, or new processes.

    They share the claim: the step is locked until the last of them has ended. Raises RankFailed.
    """
    stop.set_stop_handler(None)
    environments, kills, attempt = _environments(count), KillCount(), this.attempt
    shared = os.dup(claim)
    if forked is None:
        pids = [_spawn(environment, this, shared) for environment in environments]
    else:
        pids = [_fork(environment, attempt, forked) for environment in environments]
    os.close(shared)
    failed = [(pids.index(pid), code) for pid, code in _wait(pids) if code]
    if failed and not stop.requested():
        raise RankFailed(_account(attempt, failed, kills))


def alone() -> dict[str, str]:
    """What a single rank's environment must say for DeepSpeed, which makes a process group of one as well.

    Without it DeepSpeed fails in torch.distributed's rendezvous: "MASTER_ADDR expected, but not set".
    """
    (environment,) = _environments(1)
    return environment


def _environments(count: int) -> list[dict[str, str]]:
    shared = {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1"}
    shared |= {"MASTER_PORT": str(_free_port())}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]


def _free_port() -> int:
    """A port below the range that the kernel assigns by itself, so that no other program gets it meanwhile by
    chance."""
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
        redirect(attempt.log_of(int(environment["RANK"])))
        code = entry()
    finally:
        leave(code)


def _spawn(environment: dict[str, str], this: Rank, claim: int) -> int:
    attempt, scratch = this.attempt, this.folder.scratch
    apart = [] if scratch is None else ["--scratch", str(scratch)]
    with attempt.log_of(int(environment["RANK"])).open("a") as log:
        process = subprocess.Popen(
            [sys.executable, str(RUN), "worker", "--rank", str(attempt.path), *apart],
            cwd=attempt.path,
            env=dict(os.environ) | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(claim,),
        )
    process.returncode = 0  # reaped below, by its id
    return process.pid


def _wait(pids: list[int]) -> list[tuple[int, int]]:
    """Each one's id and exit code (negative for a signal), in the order in which they ended.

    A request to stop is passed on to them. After a failure, the others have some seconds to end by themselves.
    """
    ended: list[tuple[int, int]] = []
    alive, forwarded, deadline = set(pids), False, float("inf")
    while alive:
        news = [(pid, os.waitstatus_to_exitcode(status)) for pid, status in map(_poll, alive) if pid]
        ended += sorted(news, key=lambda one: one[1])  # a signal is the cause of what ended at the same moment
        alive -= {pid for pid, _ in news}
        if any(code for _, code in news):
            deadline = min(deadline, time.monotonic() + GRACE_S)
        if stop.requested() and not forwarded:
            forwarded = True
            _signal(alive, signal.SIGTERM)
        if time.monotonic() > deadline:
            _signal(alive, signal.SIGKILL)
        time.sleep(POLL_S)
    return ended


def _poll(pid: int) -> tuple[int, int]:
    return os.waitpid(pid, os.WNOHANG)


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        os.kill(pid, number)  # our child, and not reaped yet, so it exists


def _account(attempt: Attempt, failed: list[tuple[int, int]], kills: KillCount) -> Failure:
    """Why the first one failed: the others usually did because it was gone."""
    rank, code = failed[0]
    if code < 0 and not attempt.failure(rank).exists():
        if code == -signal.SIGKILL:
            out_of_memory = kills.take()
            reason = FailureReason.OOM if out_of_memory else FailureReason.LOST
            return Failure(reason, f"rank {rank} {killed_for(out_of_memory)}")
        return Failure(FailureReason.LOST, f"rank {rank} was killed by signal {-code} ({signal.strsignal(-code)})")
    for number, _ in failed:
        if (account := attempt.failure(number)).exists():
            return Failure.from_json(account.read_text(encoding="utf-8"))
    return Failure(FailureReason.ERROR, f"rank {rank} ended with code {code} and gave no reason")
