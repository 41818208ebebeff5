"""A call on Modal as its argument, and where its step is: on two mounted Volumes, which together are a store.

Standard library.
"""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modal_app.store.layout import STEPS, Store
from modal_app.store.read_json import fields_of
from modal_app.store.step import Step, StepKind

CACHE_MOUNT = Path("/cache")
"""hub/, inputs/, prepared/: written by fetch and preprocess, read by all functions."""
RUNS_MOUNT = Path("/data")
"""runs/, done/: each attempt's folder has one writer."""
ROOT = Path("/axosweep")
"""The store as the worker sees it: links into the two mounts."""
DONE = "done"
"""On the runs Volume: a file per finished step, so that one listing tells a client what is done."""

FETCHED = "fetched"
"""On the runs Volume: a folder per hub model, with the attempts at fetching it."""

MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Job:
    """One function call, as its argument: what to do, by name, and where everything is.

    It is always small: the step itself, and the jobs that wait for it, are in the sweep's folder on the runs Volume.
    """

    name: str
    """What the call does, the same for all sweeps: the key of its claim, such as `train/<key>`."""
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
    max_attempts: int = MAX_ATTEMPTS
    """After so many in a row that have died, the job has failed."""
    limit_s: int = 0
    """Modal's timeout of the call; 0 where it is not known."""
    cores: float = 0.125
    """Physical cores that its call reserves, for the price. The default is what Modal reserves for a function that
    requests none (modal.com/docs/guide/resources)."""
    memory_gib: float = 0.125
    """The host memory that it reserves."""
    reused: bool = False
    """Whether its container takes another call afterwards, if the job has left nothing in it."""
    continues: str = ""
    """The call that made this one to continue in its place."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Job:
        return cls.of(json.loads(text))

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Job:
        return cls(**fields_of(cls, raw))

    def read_step(self, mount: Path = RUNS_MOUNT) -> Step:
        """The step, from the mounted Volume."""
        return Step.from_json(self._sweep_file(mount)["steps"][self.name])

    def read_waiting(self, mount: Path = RUNS_MOUNT) -> list[Job]:
        """The jobs that its own sweep starts when it has succeeded, from the mounted Volume."""
        return [Job.of(raw) for raw in self._sweep_file(mount)["waiting"].get(self.name, ())]

    def read_halved(self, mount: Path = RUNS_MOUNT) -> dict[str, Job]:
        """The jobs of its sweep that may stop at a rung and go on later, by name, from the mounted Volume."""
        return _halved(self._sweep_file(mount))

    def _sweep_file(self, mount: Path) -> dict[str, Any]:
        path = Store(mount).sweeps / self.sweep / STEPS
        status = path.stat()
        return _read_once(path, (status.st_ino, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=1)
def _read_once(path: Path, stamp: tuple[int, ...]) -> dict[str, Any]:
    """A sweep's file, not to be changed. It has the configs of all runs, and a call reads it half a dozen times.
    `stamp`: differs if the content differs."""
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return raw


def steps_file(steps: Mapping[str, Step], waiting: Mapping[str, Sequence[Job]], halved: Sequence[Job] = ()) -> str:
    """A sweep's steps by the names of their jobs, the jobs that wait for each, and those of runs with rungs, as a Job
    reads them."""
    return json.dumps(
        {
            "steps": {name: step.to_json() for name, step in steps.items()},
            "waiting": {name: [asdict(job) for job in jobs] for name, jobs in waiting.items()},
            "halved": [asdict(job) for job in halved],
        }
    )


def halved_jobs(text: str) -> dict[str, Job]:
    """The jobs of a sweep's file that may stop at a rung and go on later, by name."""
    return _halved(json.loads(text))


def _halved(raw: Mapping[str, Any]) -> dict[str, Job]:
    return {one["name"]: Job.of(one) for one in raw.get("halved", ())}


def job_name(kind: StepKind, key: str) -> str:
    """The name of the job that does a step."""
    return f"{kind}/{key}"


def mark_name(name: str) -> str:
    """The name of a job's file in `done/`."""
    return name.replace("/", "-")


def open_store() -> Store:
    """The store of this container. A read-only mount is not changed."""
    ROOT.mkdir(exist_ok=True)
    for name, mount in (("inputs", CACHE_MOUNT), ("prepared", CACHE_MOUNT), ("runs", RUNS_MOUNT)):
        with contextlib.suppress(OSError):
            (mount / name).mkdir(exist_ok=True)
        if not (ROOT / name).is_symlink():
            (ROOT / name).symlink_to(mount / name)
    return Store(ROOT)
