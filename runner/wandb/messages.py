"""What is asked of the process that knows W&B, and what it answers. JSON in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

REFUSED = 3
"""The exit code of the process when W&B does not take the key."""
SILENT = 4
"""Its exit code when W&B has let it in and then does not answer."""
MOST_ROWS = 10_000
"""As many rows of a run's history as W&B answers at once."""
STEP = "train/global_step"
"""The optimizer step, in each row of a run's history."""


@dataclass(frozen=True, slots=True)
class Job:
    """A run, as W&B is to have it."""

    key: str
    folder: str
    """Its folder: metrics.jsonl, wandb/."""
    id: str
    project: str
    entity: str
    """Empty: the key's own."""
    group: str
    name: str
    tags: tuple[str, ...]
    """Its own, for a run that W&B does not have yet."""
    sweeps: tuple[str, ...]
    """The tags of the later sweeps that asked for it."""
    params: Mapping[str, Any]
    """To stand at the top of its config, where W&B does not have them yet."""
    summary: Mapping[str, Any]
    """To stand in its summary."""
    finished: bool
    """Whether it has succeeded."""

    @property
    def path(self) -> str:
        return "/".join(part for part in (self.entity, self.project, self.id) if part)


@dataclass(frozen=True, slots=True)
class Answer:
    key: str
    text: str
    """One line for the user."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """A sweep to be read: the runs of its group, or with its tag."""

    sweep: str
    tag: str
    project: str
    entity: str
    """Empty: the key's own."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run, as W&B has it."""

    id: str
    state: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    """Rows as they were logged, also those that a resumed run logged again."""
    composed: Mapping[str, Any] | None = None
    """Its composed config, from among its files."""


@dataclass(frozen=True, slots=True)
class WantedObject:
    """A sweep object to be made."""

    name: str
    """The sweep's id."""
    project: str
    entity: str
    """Empty: the key's own."""
    parameters: Mapping[str, Sequence[Any]]
    """The swept keys with their values, without secrets."""
