"""A sweep's folder: plan.json, to which runs are only added, and records.jsonl, to which lines are only appended."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from modal_app.store.claim import Owner, this_process
from modal_app.store.layout import STEPS, Store
from modal_app.store.lines import append_line, read_lines
from modal_app.store.read_json import read_as, read_json
from modal_app.store.step import Step, StepKind, write_atomically
from runner.errors import SweepError, did_you_mean
from runner.types import Plan

MAX_TIME = 1e11
"""In Unix seconds, in the year 5138: a larger number is not the date of a launch."""


class Event(StrEnum):
    LAUNCHED = "launched"
    """This sweep was launched (again)."""
    SKIPPED = "skipped"
    """It was done before."""
    SUBMITTED = "submitted"
    """It is about to be sent to a worker."""
    STARTED = "started"
    """A worker has locked the step's folder and runs."""
    FOLLOWED = "followed"
    """A worker of another launcher runs it, and this launcher waits for it."""
    PROMOTED = "promoted"
    """It had stopped at a rung of its search, and goes on from there."""
    TRIED_AGAIN = "tried again"
    """It was out of memory, and is tried again with a smaller micro batch (on_oom=halve)."""
    FINISHED = "finished"
    """It has ended, with any status."""
    NOTICE = "notice"
    """A notice is about to be sent."""
    NOTIFIED = "notified"
    """It was sent."""


@dataclass(frozen=True, slots=True)
class Record:
    event: Event
    kind: StepKind | None = None
    key: str = ""
    at: float = field(default_factory=time.time)
    """Unix seconds."""
    attempt: int | None = None
    pid: int | None = None
    status: str = ""
    reason: str = ""
    message: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SweepRun:
    """A run in plan.json."""

    key: str
    data_key: str
    overrides: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepPlan:
    """plan.json, read back."""

    sweep: str
    created_at: float
    runs: tuple[SweepRun, ...]
    note: str = ""
    """Of the newest launch that had one."""
    command: str = ""
    """The command line of the first launch, which continues the sweep; empty if no command launched it."""


class Ledger:
    """The records of one sweep."""

    def __init__(self, store: Store, sweep: str) -> None:
        self.folder = store.sweeps / sweep
        self._records = self.folder / "records.jsonl"

    def open(self, plan: Plan, command: str, note: str = "") -> None:
        """Write plan.json unless it exists, and record the launch. If it exists, its note may change, and runs that it
        does not have are added (`axosweep settle`): without those, the same id means the same runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "plan.json"
        runs = [SweepRun(one.run.key, one.run.data_key, tuple(one.run.experiment.overrides)) for one in plan.runs]
        if (known := _plan_in(path)) is None:
            commit = plan.runs[0].step.tracking.commit if plan.runs else ""
            described = {"sweep": plan.sweep, "created_at": time.time(), "command": command, "commit": commit}
            more = {"note": note, "runs": [asdict(run) for run in runs]}
            write_atomically(path, json.dumps(described | more, indent=1))
        else:
            keys = {run.key for run in known.runs}
            more_runs = [run for run in runs if run.key not in keys]
            if more_runs or (note and note != known.note):
                changed = {"note": note or known.note, "runs": [asdict(run) for run in (*known.runs, *more_runs)]}
                write_atomically(path, json.dumps({**read_json(path), **changed}, indent=1))
        self.begin(command, note)

    def begin(self, command: str, note: str = "") -> None:
        """Record a launch."""
        self.folder.mkdir(parents=True, exist_ok=True)
        launcher = asdict(this_process(self.folder.name))
        facts = {"launcher": launcher} | ({"note": note} if note else {})
        self.append(Record(Event.LAUNCHED, message=command, facts=facts))

    def append(self, record: Record) -> None:
        filled = {name: value for name, value in asdict(record).items() if value not in ("", None, {})}
        append_line(self._records, filled)

    def records(self) -> list[Record]:
        """Every complete record, oldest first."""
        return [record for record in map(_parsed, read_lines(self._records)) if record is not None]

    def plan(self) -> SweepPlan:
        """Raises SweepError when there is no such sweep."""
        path = self.folder / "plan.json"
        if (plan := _plan_in(path)) is not None:
            return plan
        if path.exists():
            raise SweepError(f"{path} cannot be read. Launching the sweep again writes it again.")
        raise SweepError(f"There is no sweep {self.folder.name} in {self.folder.parent}.")


def live_launchers(store: Store, sweep: str) -> list[Owner]:
    """The live processes on this machine that have launched a sweep."""
    launched = (record.facts.get("launcher") for record in Ledger(store, sweep).records())
    return [owner for raw in launched if raw and (owner := Owner(**raw)).is_alive()]


def _plan_in(path: Path) -> SweepPlan | None:
    """A plan.json; None if there is none, or it cannot be read. It is written once, so it is parsed once."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return _parsed_plan(path, stat.st_ino, stat.st_mtime_ns, stat.st_size)


@functools.lru_cache(maxsize=4096)
def _parsed_plan(path: Path, _inode: int, _mtime_ns: int, _size: int) -> SweepPlan | None:
    return read_as(path, plan_of)


def plan_of(raw: Mapping[str, Any]) -> SweepPlan:
    """The object in a plan.json. Raises KeyError, TypeError or ValueError for another one."""
    runs = tuple(SweepRun(run["key"], run["data_key"], tuple(run["overrides"])) for run in raw["runs"])
    if not all(isinstance(one, str) for run in runs for one in (run.key, run.data_key, *run.overrides)):
        raise TypeError("a key or an override of a run is not text")
    if not 0 <= (created_at := float(raw["created_at"])) < MAX_TIME:
        raise ValueError("its created_at is not a date")
    note, command = (str(raw.get(key) or "") for key in ("note", "command"))
    return SweepPlan(raw["sweep"], created_at, runs, note, command)


def sweeps_after(store: Store, sweep: str) -> list[str]:
    """The groups of follow-up steps of a sweep's runs, each with a name like a sweep's: `SWEEP/after-...`."""
    return sorted(path.relative_to(store.sweeps).as_posix() for path in (store.sweeps / sweep).glob("after-*"))


def steps_after(store: Store, name: str) -> list[Step]:
    """The steps of one of `sweeps_after`, done or not. Empty for one that an older version has written."""
    return read_as(store.sweeps / name / STEPS, _steps_of) or []


def _steps_of(raw: Mapping[str, Any]) -> list[Step]:
    return [Step.from_json(text) for text in raw["steps"].values()]


def sweep_ids(store: Store) -> list[str]:
    """Every sweep of a store whose plan can be read, the one that was launched last comes first."""
    return [name for name in sweep_names(store) if _plan_in(store.sweeps / name / "plan.json") is not None]


def sweep_names(store: Store) -> list[str]:
    """`sweep_ids`, with those whose plan cannot be read, for completion: no plan is read."""
    plans = store.sweeps.glob("*/plan.json")
    return [path.parent.name for path in sorted(plans, key=_last_touched, reverse=True)]


def refuse_blank(name: str) -> None:
    """Raises SweepError for an empty name: as a beginning, it would fit every sweep and run."""
    if not name.strip():
        raise SweepError("The name of a sweep or run is empty. Is a shell variable not set?")


def no_sweep_text(store: Store) -> str:
    """The way out for a store without sweeps, also if the results are in another folder."""
    return (
        f"There is no sweep in {store.root} yet. Start one: axosweep -m +sweeps=tiny_grid. If it is in another "
        "folder, add --store FOLDER/out."
    )


def find_sweep(store: Store, name: str | None) -> str:
    """The sweep with that name or beginning of a name; None means the newest.

    Raises SweepError when no sweep matches, or more than one does.
    """
    known = sweep_ids(store)
    if not known:
        raise SweepError(no_sweep_text(store))
    if name is None:
        return known[0]
    refuse_blank(name)
    fits = [sweep for sweep in known if sweep == name] or [one for one in known if one.startswith(name)]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise SweepError(f"{name} is the beginning of several sweeps' ids: {', '.join(fits)}. Write more of the id.")
    raise SweepError(
        f"There is no sweep {name} in {store.root}.{did_you_mean(name, known)} `axosweep status` lists them."
    )


def last_activity(store: Store, sweep: str) -> int:
    """The time of a sweep's last launch or record, in nanoseconds, for comparison only."""
    return _last_touched(store.sweeps / sweep / "plan.json")


def _last_touched(plan: Path) -> int:
    records = plan.with_name("records.jsonl")
    return (records if records.exists() else plan).stat().st_mtime_ns


def _parsed(raw: Mapping[str, Any]) -> Record | None:
    try:
        kind = None if raw.get("kind") is None else StepKind(raw["kind"])
        return Record(**{**raw, "event": Event(raw["event"]), "kind": kind, "at": float(raw["at"])})
    except (ValueError, TypeError, KeyError):
        return None
