"""A step inside a Modal container: the worker as a process of its own, watched until it ends.

Standard library: the container's Python imports nothing heavy before the worker does, and the worker is never forked
from Modal's entrypoint, which has threads.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

from modal_app.cloud import scratch
from modal_app.cloud.aside import Aside
from modal_app.cloud.job import CACHE_MOUNT, ROOT
from modal_app.process import threads
from modal_app.process.signals import signal_group
from modal_app.store.hub import HubItem
from modal_app.store.sources import RUN
from modal_app.store.step import Step, StepKind

TICK_S = 10.0
ANSWER_S = 0.5
"""A trainer that asks at a rung waits about half as long, with its GPUs."""
FIRST_TICK_S = 2.0
"""By then the worker has recorded that it has begun, and the run's W&B id, which must outlive this container."""
STOP_GRACE_S = 20.0
"""A preempted container is killed 30 s after the request to stop: by then a checkpoint must be written and committed.
"""
DEAD_S = 2.0
"""How long to wait for the end of a worker that was killed."""
LONGEST_MARGIN_S = 900.0
"""How long before its time limit a worker is asked to stop, unless a fifth of the limit is less: writing the checkpoint
of a large model takes time."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a worker must end, on the clock of time.monotonic()."""

    stop_at: float = math.inf
    """Then it is asked to save a checkpoint and stop."""
    kill_at: float = math.inf
    """Then it is killed, if it still runs."""
    copy_until: float = math.inf
    """Until then, what it has saved may be copied."""

    def within(self, others: Limits) -> Limits:
        """The earlier one of each."""
        return Limits(*map(min, astuple(self), astuple(others)))


@dataclass(frozen=True, slots=True)
class Watch:
    """What a call does while its worker runs."""

    tick: Callable[[], None]
    """About every ten seconds, on a thread of its own. Raises a BaseException to stop the worker, and nothing else."""
    stop_requested: Callable[[BaseException], None]
    """The call was requested to stop, and so was the worker: it may be saving a checkpoint. Raises nothing."""
    limits: Limits = Limits()
    killed: Callable[[str], None] = lambda by: None
    """The worker is about to be killed; the text says by whom."""
    answer: Callable[[], None] | None = None
    """About twice a second, where the worker may ask something; on a thread of its own, too."""


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """A worker has ended. `code` is negative for a signal."""

    pid: int
    code: int
    out_of_time: bool
    """It came to its limits."""

    def why_stopped(self, *, for_budget: bool) -> str:
        """Why it did not end by itself; empty if it did. `for_budget`: the limit is that of its share of a budget."""
        if self.out_of_time:
            limit = "its share of the budget was spent" if for_budget else "its time limit had come"
            return f"its worker was {'killed' if self.code < 0 else 'stopped'}, since {limit}"
        return f"its worker was killed by signal {-self.code}" if self.code < 0 else ""


def time_limits(limit_s: float) -> Limits:
    """Those of a call that has just started: before Modal's own timeout, after which nothing can be saved."""
    if not limit_s:
        return Limits()
    over_at, margin_s = time.monotonic() + limit_s, min(limit_s / 5, LONGEST_MARGIN_S)
    return Limits(over_at - margin_s, over_at - margin_s / 6, over_at - margin_s / 12)


def run_worker(step: Step, attempt: int, watch: Watch, cores: float, place: Path) -> WorkerExit:
    """Run the step in a process of its own, which writes into the draft of this attempt and has these reserved cores.
    `place`: its scratch folder.

    A trainer does not contact the hub: what it reads was fetched before a GPU was rented. Evaluating on tasks does, and
    a run that reads its own data from there.

    If this call is asked to stop (a preemption, a timeout, a cancelled input: all arrive as BaseException), the process
    group is asked to save a checkpoint and stop, and the request is raised again.
    """
    online = step.kind is StepKind.PREPROCESS or step.asks_the_hub
    offline = {} if online else {"HF_HUB_OFFLINE": "1"}
    private = scratch.variables(place.parent)
    if step.kind is StepKind.TRAIN and step.asks_the_hub:
        private |= _hub_cache_of_its_own(Path(private["HF_HOME"]))
    variables = offline | private | threads.for_ranks(step.device, step.processes, cores)
    words = ["--store", str(ROOT), "--attempt", str(attempt), "--scratch", str(place)]
    return _run("worker", words, watch, variables, given=step.to_json())


def run_fetch(item: HubItem, watch: Watch) -> WorkerExit:
    """Fetch what is on the hub into the shared cache."""
    return _run("fetch", [item.name, item.commit, *item.skipped], watch, {})


def _run(name: str, words: list[str], watch: Watch, variables: Mapping[str, str], given: str = "") -> WorkerExit:
    process = subprocess.Popen(
        [sys.executable, RUN, name, *words],
        stdin=subprocess.PIPE,
        env={**_environment(), **variables},
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as pipe:  # it may die before it has read
            pipe.write(given)
        return watched(process, watch)
    except BaseException as error:
        signal_group(process.pid, signal.SIGTERM)
        try:
            watch.stop_requested(error)
        finally:
            _end(process, watch)
        raise


def watched(process: subprocess.Popen[str], watch: Watch) -> WorkerExit:
    """Wait until a worker has ended, by itself or by its limits, whatever else hangs meanwhile."""
    limits, out_of_time, tick_at = watch.limits, False, time.monotonic() + FIRST_TICK_S
    tick, answer = Aside(watch.tick), Aside(watch.answer) if watch.answer is not None else None
    while True:
        next_at = min(tick_at, limits.kill_at if out_of_time else limits.stop_at)
        pause_s = max(0.0, next_at - time.monotonic())
        try:
            code = process.wait(pause_s if answer is None else min(pause_s, ANSWER_S))
            return WorkerExit(process.pid, code, out_of_time)
        except subprocess.TimeoutExpired:
            now = time.monotonic()
            if not out_of_time and now >= limits.stop_at:
                out_of_time = True
                signal_group(process.pid, signal.SIGTERM)
            elif out_of_time and now >= limits.kill_at:
                code = _kill(process, watch, "its call, whose time was over")
                return WorkerExit(process.pid, code, out_of_time)
            elif now >= tick_at:
                tick()
                tick_at = time.monotonic() + TICK_S
            if answer is not None:
                answer()


def _end(process: subprocess.Popen[str], watch: Watch) -> None:
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        _kill(process, watch, f"its container, which Modal ends, {STOP_GRACE_S:g} s after the request to stop")


def _kill(process: subprocess.Popen[str], watch: Watch, by: str) -> int:
    """Returns its code; that of the signal, too, if it hangs in a GPU's driver and ends only with its container."""
    watch.killed(by)
    signal_group(process.pid, signal.SIGKILL)
    try:
        return process.wait(DEAD_S)
    except subprocess.TimeoutExpired:
        return -signal.SIGKILL


def _hub_cache_of_its_own(home: Path) -> dict[str, str]:
    """A cache on this container's disk, for the datasets of a run that reads its own data, since the shared one is
    mounted read-only. It links to the models there."""
    private = home / "hub"
    private.mkdir(parents=True, exist_ok=True)
    for model in (CACHE_MOUNT / "hub").glob("models--*"):
        if not (private / model.name).is_symlink():
            (private / model.name).symlink_to(model)
    return {"HF_HUB_CACHE": str(private)}


def _environment() -> dict[str, str]:
    """Secrets are in this container's environment. The hub's cache is shared; its other files are private."""
    private = Path(tempfile.gettempdir(), "huggingface")
    variables = {**os.environ, "HF_HUB_CACHE": str(CACHE_MOUNT / "hub"), "HF_HOME": str(private)}
    if token := os.environ.get("HUGGINGFACE_TOKEN"):
        variables["HF_TOKEN"] = token
    return variables
