"""A step inside a Modal container: the store made of two mounted Volumes, the worker as a process of its own.

Standard library: the container's Python imports nothing heavy before the worker does, and the worker is never forked
from Modal's entrypoint, which has threads.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modal_app.hub import HubItem
from modal_app.layout import STEPS, Store
from modal_app.step import Step, StepKind

CACHE_MOUNT = Path("/cache")
"""hub/, inputs/, prepared/: written by fetch and preprocess, read by everyone."""
RUNS_MOUNT = Path("/data")
"""runs/, done/: each run's folder has one writer."""
ROOT = Path("/axosweep")
"""The store as the worker sees it: links into the two mounts."""
DONE = "done"
"""On the runs Volume: a file per finished step, so that one listing tells a client what is done."""

FETCHED = "fetched"
"""On the runs Volume: a folder per hub model, for whoever fetches it."""

TICK_S = 10.0
STOP_GRACE_S = 20.0
"""Modal sends SIGINT 30 s after asking, SIGKILL 30 s later: a checkpoint has to be written and committed by then."""


@dataclass(frozen=True, slots=True)
class Job:
    """One function call, as its argument: what to do, by name, and where everything is.

    Small whatever it does: the step itself, and what waits for it, are in the sweep's folder on the runs Volume.
    """

    name: str
    """What the call does, once for everybody: the key of its claim, such as `train/<key>`."""
    sweep: str
    """The sweep that calls it."""
    app: str
    function: str
    claims: str
    """The modal.Dict of claims."""
    cache_volume: str
    runs_volume: str
    options: Mapping[str, Any] = field(default_factory=dict)
    """with_options of its call: gpu, timeout, ..."""
    awaited: bool = False
    """Whether other jobs wait for it."""
    max_attempts: int = 3
    continues: str = ""
    """The call that came to its time limit and made this one in its place."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls(**json.loads(text))

    def read_step(self, mount: Path = RUNS_MOUNT) -> Step:
        """The step, from the mounted Volume."""
        return Step.from_json(self._sweep_file(mount)["steps"][self.name])

    def read_waiting(self, mount: Path = RUNS_MOUNT) -> list[Job]:
        """What its own sweep starts when it has succeeded, from the mounted Volume."""
        return [Job(**raw) for raw in self._sweep_file(mount)["waiting"].get(self.name, ())]

    def _sweep_file(self, mount: Path) -> dict[str, Any]:
        path = Store(mount).sweeps / self.sweep / STEPS
        raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return raw


def steps_file(steps: Mapping[str, Step], waiting: Mapping[str, Sequence[Job]]) -> str:
    """A sweep's steps by the names of their jobs, and what waits for each, as a Job reads it."""
    return json.dumps(
        {
            "steps": {name: step.to_json() for name, step in steps.items()},
            "waiting": {name: [asdict(job) for job in jobs] for name, jobs in waiting.items()},
        }
    )


def mark_name(name: str) -> str:
    """The file in `done/` for what a job's name says."""
    return name.replace("/", "-")


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

    A trainer does not ask the hub: what it reads has been fetched before a GPU was rented.

    When this call is asked to stop (a cancelled input, a timeout, a preemption: all arrive as BaseException), the whole
    process group is asked to checkpoint and stop, and the request goes on to the caller.
    """
    offline = {"HF_HUB_OFFLINE": "1"} if step.kind is StepKind.TRAIN else {}
    return _run("worker.py", ["--store", str(ROOT)], tick, offline, given=step.to_json())


def run_fetch(item: HubItem, tick: Callable[[], None]) -> int:
    """Fetch what is on the hub into the shared cache."""
    return _run("fetch.py", [item.name, item.commit, *item.skipped], tick, {})


def _run(script: str, words: list[str], tick: Callable[[], None], variables: Mapping[str, str], given: str = "") -> int:
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name(script), *words],
        stdin=subprocess.PIPE,
        env={**_environment(), **variables},
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(given)
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


def _environment() -> dict[str, str]:
    """Secrets arrive as this container's environment; the hub's cache is shared, everything else of it is private."""
    private = Path(tempfile.gettempdir(), "huggingface")
    variables = {**os.environ, "HF_HUB_CACHE": str(CACHE_MOUNT / "hub"), "HF_HOME": str(private)}
    if token := os.environ.get("HUGGINGFACE_TOKEN"):
        variables["HF_TOKEN"] = token
    return variables
