"""A step and its outcome: what the launcher sends to the worker, and what it gets back. JSON at the edges."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from modal_app.store.durable import flush
from modal_app.store.own_data import OwnData, entries, is_stored, own_data_of
from modal_app.store.read_json import fields_of
from modal_app.store.rungs import Rungs


class StepKind(StrEnum):
    PREPROCESS = "preprocess"
    TRAIN = "train"
    MERGE = "merge"
    INFER = "infer"
    EVALUATE = "evaluate"


FOLLOW_UP_KINDS = (StepKind.MERGE, StepKind.INFER, StepKind.EVALUATE)
"""What is done with a run that has finished."""


class Device(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"


EXIT_HELD = 75
"""A worker's exit code if another live process has claimed the step (sysexits: EX_TEMPFAIL)."""


@dataclass(frozen=True, slots=True)
class Tracking:
    """How a run appears in W&B."""

    mode: str
    """online, offline or disabled"""
    project: str = "axosweep"
    entity: str | None = None
    group: str = ""
    """The first sweep that runs it."""
    name: str = ""
    tags: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    """The parameters that the sweep varies, under their names in the request."""
    commit: str = ""
    """The commit of the checkout that axosweep was started from; empty if it was not a checkout."""
    note: str = ""
    """The user's own words about the sweep. In no key."""
    sweep_object: str = ""
    """The id that W&B gave the sweep object; empty without one. In no key."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a step may cost: its part of a sweep's budget. In no key."""

    dollars: float
    seconds: float
    """As many as these dollars pay, of all containers of all its attempts together."""


@dataclass(frozen=True, slots=True)
class Step:
    """One unit of work, complete: a process that has it needs nothing else but the store."""

    kind: StepKind
    key: str
    """The data key of a preprocess step, the run key of a train step; of what comes after it, `layout.after_key`."""
    config: Mapping[str, Any]
    """The Axolotl config, local inputs written as `inputs/...` (relative to the attempt's folder)."""
    data_key: str
    processes: int = 1
    """Data-parallel ranks; one per GPU."""
    device: Device = Device.CPU
    base_model: str = ""
    """The base model as the user named it; written into the adapter's own config."""
    tracking: Tracking = field(default_factory=lambda: Tracking("disabled"))
    environment: Mapping[str, str] = field(default_factory=dict)
    """Extra process environment. Never a secret: it is sent in clear."""
    sweep: str = ""
    """The sweep on whose behalf it is started."""
    share: Share | None = None
    """Where the sweep has a budget: what this step may take of it."""
    run: str = ""
    """The key of the run that a step comes after; empty for one of the base model alone."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What a step that comes after a run is to do, as its module says: merge, infer, evaluate."""
    rungs: Rungs | None = None
    """Where a run may stop before its end; None trains it to the end."""
    heals: bool = False
    """Whether a run that is out of memory is tried again with a smaller micro batch (on_oom=halve)."""

    @property
    def own_data(self) -> OwnData | None:
        """Why a run reads its own data; None where it reads a prepared dataset."""
        return own_data_of(self.config)

    @property
    def asks_the_hub(self) -> bool:
        """Whether it reads what was not fetched before: the rows of a run that reads its own data, or the datasets of
        the tasks that it evaluates on, which only show while it runs."""
        if self.kind is StepKind.TRAIN:
            return self.own_data is not None and not all(map(is_stored, entries(self.config)))
        return self.kind is StepKind.EVALUATE and bool(self.options.get("tasks"))

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Step:
        raw = fields_of(cls, json.loads(text))
        tracking, share, rungs = raw["tracking"], raw.get("share"), raw.get("rungs")
        return cls(
            **raw
            | {
                "kind": StepKind(raw["kind"]),
                "device": Device(raw["device"]),
                "tracking": Tracking(**fields_of(Tracking, tracking) | {"tags": tuple(tracking["tags"])}),
                "share": share and Share(**fields_of(Share, share)),
                "rungs": rungs and Rungs(**fields_of(Rungs, rungs) | {"fractions": tuple(rungs["fractions"])}),
            }
        )


class OutcomeStatus(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"
    """Asked to stop (a signal): it can be continued."""
    AT_RUNG = "stopped at rung"
    """At a rung of a search, other runs were better: it can be continued from there. The facts have the rung."""
    LOST = "lost"
    """Its process ended without a result."""


class FailureReason(StrEnum):
    CONFIG = "config"
    DATA = "data"
    OOM = "oom"
    DISK = "disk"
    """The disk is full."""
    NAN = "nan"
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    BUDGET = "budget"
    """Stopped, with a checkpoint: its share of the sweep's budget is spent."""
    KILLED = "killed"
    """Stopped by a kill of ours, after a request to stop: what is newer than its last checkpoint is lost."""
    UNPUBLISHED = "unpublished"
    """Trained on Modal, and its files are all there, but its container ended before it could move them into place."""
    LOST = "lost"
    ERROR = "error"
    """None of the others: the message says what."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended."""

    status: OutcomeStatus
    attempt: int
    started_at: float
    """Unix seconds."""
    finished_at: float
    reason: FailureReason | None = None
    message: str = ""
    """One line for the table; the log has the rest."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """train: step, max_steps, world_size, threads (of each rank), manifest (its sha256), phases and cpu (seconds),
    damaged (checkpoints that were not used, as a text), out_of_memory_on (`gpu` or `machine`, of an allocation that
    has failed), smaller_batch (the keys that on_oom=halve has changed); preprocess: the manifest; merge: files, bytes;
    infer: prompts, ...; evaluate: metrics."""

    @property
    def seconds(self) -> float:
        return self.finished_at - self.started_at

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True, indent=1)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Outcome:
        """Raises ValueError, TypeError or KeyError for anything that is not an outcome."""
        reason = raw["reason"]
        made = cls(
            **{
                **raw,
                "status": OutcomeStatus(raw["status"]),
                "reason": None if reason is None else FailureReason(reason),
                "started_at": float(raw["started_at"]),
                "finished_at": float(raw["finished_at"]),
            }
        )
        if not isinstance(made.facts, dict):
            raise TypeError("its facts are not an object")
        return made

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        return cls.of(json.loads(text))


def write_atomically(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Write a temporary file next to it, then rename: a reader sees the old file or the complete new one. `durable`:
    and wait until it is on the disk.

    The temporary name is random: two containers that share a Volume may have the same process ids.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            # surrogateescape: for paths in another encoding
            file.write(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))
            file.flush()
            if durable:
                flush(file.fileno(), path)
        temporary.replace(path)
    except OSError as error:  # a full disk
        temporary.unlink(missing_ok=True)
        raise name_file(error, path) from error.__cause__


def name_file(error: OSError, path: Path) -> OSError:
    """The error with the name of the file: a write that fails does not name it."""
    return error if error.filename else OSError(error.errno, error.strerror, str(path))
