"""What the fake stores: runs with their history, files and artifacts, by entity and project."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

ENTITY = "local"
TIME = "2026-11-01T00:00:00Z"
HISTORY, EVENTS, SUMMARY = "wandb-history.jsonl", "wandb-events.jsonl", "wandb-summary.json"


@dataclass
class Run:
    entity: str
    project: str
    name: str
    """Its id, as people say; W&B calls it the name, and the name the display name."""
    number: int
    display_name: str = ""
    group: str | None = None
    job_type: str | None = None
    notes: str | None = None
    sweep: str | None = None
    tags: list[str] = field(default_factory=list)
    state: str = "running"
    config: dict[str, Any] = field(default_factory=dict)
    """Wrapped: key -> {"value": ...}."""
    summary: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, list[str]] = field(default_factory=dict)
    """The streams of lines: history, events, console."""
    files: dict[str, bytes] = field(default_factory=dict)
    preempting: bool = False

    @property
    def storage_id(self) -> str:
        return f"run-{self.number}"

    @property
    def history(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines.get(HISTORY, ())]

    def values(self, name: str) -> dict[int, Any]:
        """A metric by training step; of a repeated step, the last value."""
        return {row["train/global_step"]: row[name] for row in self.history if name in row}

    @property
    def settings(self) -> dict[str, Any]:
        """The config, unwrapped."""
        return {key: one.get("value") for key, one in self.config.items()}

    def stream(self, posted: dict[str, Any]) -> None:
        """A post to its file stream: lines at an offset, the summary, and at the end how it ended."""
        for name, chunk in (posted.get("files") or {}).items():
            if name == SUMMARY:
                self.summary = json.loads(chunk["content"][-1])
            else:
                kept, offset = self.lines.setdefault(name, []), chunk["offset"]
                kept[offset : offset + len(chunk["content"])] = chunk["content"]
        self.preempting = self.preempting or bool(posted.get("preempting"))
        if posted.get("complete"):
            failed = "preempted" if self.preempting else "failed"
            self.state = failed if posted.get("exitcode") else "finished"

    def upsert(self, given: dict[str, Any]) -> None:
        """Set the given values; null does not clear a value."""
        for ours, theirs in {
            "display_name": "displayName", "group": "groupName", "job_type": "jobType", "notes": "notes",
            "sweep": "sweep", "tags": "tags", "state": "state",
        }.items():  # fmt: skip
            if given.get(theirs) is not None:
                setattr(self, ours, given[theirs])
        for ours, theirs in {"config": "config", "summary": "summaryMetrics"}.items():
            if given.get(theirs) is not None:
                setattr(self, ours, json.loads(given[theirs]))


@dataclass
class Artifact:
    number: int
    run: str
    type: str
    collection: str
    digest: str
    state: str = "PENDING"
    manifest: bytes = b""
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"artifact-{self.number}"


@dataclass
class Sweep:
    """A sweep object."""

    id: str
    project: str
    config: dict[str, Any]


@dataclass
class World:
    runs: dict[tuple[str, str], Run] = field(default_factory=dict)
    """By project and name; everything belongs to one entity."""
    artifacts: list[Artifact] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    views: list[dict[str, Any]] = field(default_factory=list)
    """Saved workspaces."""
    asked: Counter[str] = field(default_factory=Counter)
    """GraphQL operations and other requests, by name."""
    unknown: list[str] = field(default_factory=list)
    instead: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Responses to give in place of the fake's own, by GraphQL operation."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def find(self, project: str | None, name: str | None) -> Run | None:
        return self.runs.get((project or "uncategorized", name or ""))

    def upsert(self, given: dict[str, Any]) -> tuple[Run, bool]:
        """A run by its storage id or its name, created if it does not exist; also returns whether it was created."""
        project = given.get("project") or "uncategorized"
        if given.get("id"):
            known: Run | None = next(run for run in self.runs.values() if given["id"] in (run.storage_id, run.name))
        else:
            known = self.find(project, given.get("name"))
        run = known or Run(given.get("entity") or ENTITY, project, given["name"], len(self.runs) + 1)
        self.runs[run.project, run.name] = run
        if given.get("host"):  # a process begins to work on it, unlike a reader that changes it
            run.state, run.preempting = "running", False
        run.upsert(given)
        return run, known is None
