"""What is asked of the process that knows W&B, and what it answers. JSON in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

REFUSED = 3
"""The exit code of the process when W&B does not take the key."""


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
