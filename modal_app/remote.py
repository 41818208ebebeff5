"""A step inside a Modal container: the store made of two mounted Volumes, the worker as a process of its own.

Standard library: the container's Python imports nothing heavy before the worker does, and the worker is never forked
from Modal's entrypoint, which has threads.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modal_app.layout import Store
from modal_app.step import Step

CACHE_MOUNT = Path("/cache")
"""hub/, inputs/, prepared/: written by fetch and preprocess, read by everyone."""
RUNS_MOUNT = Path("/data")
"""runs/, done/: each run's folder has one writer."""
ROOT = Path("/axosweep")
"""The store as the worker sees it: links into the two mounts."""
DONE = "done"
"""On the runs Volume: a file per finished step, so that one listing tells a client what is done."""

TICK_S = 10.0
STOP_GRACE_S = 20.0
"""Modal sends SIGINT 30 s after asking, SIGKILL 30 s later: a checkpoint has to be written and committed by then."""


@dataclass(frozen=True, slots=True)
class Job:
    """One function call: a step, where its names are, and what to start when it has succeeded."""

    step: str
    """Step as JSON."""
    app: str
    claims: str
    """The modal.Dict of claims."""
    cache_volume: str
    runs_volume: str
    max_attempts: int = 3
    function: str = "train"
    options: Mapping[str, Any] = field(default_factory=dict)
    """with_options of its call: gpu, timeout, ..."""
    then: tuple[Job, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Job:
        return cls(**{**raw, "then": tuple(cls.from_dict(one) for one in raw["then"])})

    def read_step(self) -> Step:
        return Step.from_json(self.step)


def open_store() -> Store:
    """The store of this container. A mount that is read-only keeps what it has."""
    ROOT.mkdir(exist_ok=True)
    for name, mount in (("inputs", CACHE_MOUNT), ("prepared", CACHE_MOUNT), ("runs", RUNS_MOUNT)):
        with contextlib.suppress(OSError):
            (mount / name).mkdir(exist_ok=True)
        if not (ROOT / name).is_symlink():
            (ROOT / name).symlink_to(mount / name)
    return Store(ROOT)


def run_worker(step: Step, tick: Callable[[], None]) -> int:
    """Run the step in a process of its own; `tick` is called about every ten seconds while it runs.

    When this call is asked to stop (a cancelled input, a timeout, a preemption: all arrive as BaseException), the whole
    process group is asked to checkpoint and stop, and the request goes on to the caller.
    """
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("worker.py"), "--store", ROOT],
        stdin=subprocess.PIPE,
        env=_environment(step),
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(step.to_json())
        process.stdin.close()
        while True:
            try:
                return process.wait(TICK_S)
            except subprocess.TimeoutExpired:
                tick()
    except BaseException:
        _stop(process)
        raise


def _stop(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _environment(step: Step) -> dict[str, str]:
    """Secrets arrive as this container's environment; the hub's cache is shared, everything else of it is private."""
    private = Path(tempfile.gettempdir(), "huggingface")
    variables = {**os.environ, "HF_HUB_CACHE": str(CACHE_MOUNT / "hub"), "HF_HOME": str(private)}
    if token := os.environ.get("HUGGINGFACE_TOKEN"):
        variables["HF_TOKEN"] = token
    return variables
