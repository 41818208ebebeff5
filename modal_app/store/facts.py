"""Facts that workers have recorded, typed where they are read. A fact that is missing, or has another type, is
unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from modal_app.store.out_of_memory import Memory
from modal_app.store.read_json import read_json

BEFORE_STEPS = ("import", "config", "prepare", "load")
"""The phases of a run before its first step."""
STEPS = ("first", "train")
"""Those of its optimizer steps; the first one compiles."""


@dataclass(frozen=True, slots=True)
class DataManifest:
    """manifest.json of a prepared dataset. Values are null if preference pairs do not have them, or if an older version
    did not count them."""

    rows: int | None = None
    """To train on."""
    eval_rows: int | None = None
    tokens: int | None = None
    """Of the rows to train on."""
    trained_tokens: int | None = None
    """Those that the loss sees."""
    distinct_trained_tokens: int | None = None
    """How many different ones these are, counted up to a hundred or so."""
    longest_row: int | None = None
    """Tokens."""
    dropped_rows: int | None = None
    eval_rows_in_training: int | None = None
    eval_fingerprint: str | None = None
    """Of the held-out rows."""
    seconds: float | None = None
    """That preparing it took."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that prepared it."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        versions = raw.get("versions")
        return cls(
            rows=_count(raw.get("rows")),
            eval_rows=_count(raw.get("eval_rows")),
            tokens=_count(raw.get("tokens")),
            trained_tokens=_count(raw.get("trained_tokens")),
            distinct_trained_tokens=_count(raw.get("distinct_trained_tokens")),
            longest_row=_count(raw.get("longest_row")),
            dropped_rows=_count(raw.get("dropped_rows")),
            eval_rows_in_training=_count(raw.get("eval_rows_in_training")),
            eval_fingerprint=_text(raw.get("eval_fingerprint")),
            seconds=_number(raw.get("seconds")),
            versions={name: str(one) for name, one in versions.items()} if isinstance(versions, dict) else {},
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Nothing is known where there is no such file."""
        return cls.of(read_json(path, lenient=True))


@dataclass(frozen=True, slots=True)
class TrainFacts:
    """The facts of a train step's outcome."""

    step: int | None = None
    """The last optimizer step that was taken."""
    max_steps: int | None = None
    world_size: int | None = None
    threads: int | None = None
    """Of each rank's libraries."""
    phases: Mapping[str, float] | None = None
    """Seconds by phase."""
    cpu: Mapping[str, float] = field(default_factory=dict)
    """Seconds of processor time by phase."""
    early_stopped: bool = False
    resumed_from: int = 0
    """The step of the checkpoint that its last attempt went on from."""
    manifest: str | None = None
    """sha256 of its dataset's manifest.json."""
    eval_fingerprint: str | None = None
    no_row_losses: str | None = None
    """Why there are no losses of each held-out row; null if there are, or if it is unknown."""
    out_of_memory_on: Memory | None = None
    """The memory that an allocation has exceeded; null if none has, or if the kernel has killed the process for it."""
    smaller_batch: Mapping[str, int] = field(default_factory=dict)
    """The keys that on_oom=halve has changed, such as micro_batch_size, with their new values."""

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        return cls(
            step=_count(raw.get("step")),
            max_steps=_count(raw.get("max_steps")),
            world_size=_count(raw.get("world_size")),
            threads=_count(raw.get("threads")),
            phases=_seconds(raw.get("phases")),
            cpu=_seconds(raw.get("cpu")) or {},
            early_stopped=bool(raw.get("early_stopped")),
            resumed_from=_count(raw.get("resumed_from")) or 0,
            manifest=_text(raw.get("manifest")),
            eval_fingerprint=_text(raw.get("eval_fingerprint")),
            no_row_losses=_text(raw.get("no_row_losses")),
            out_of_memory_on=_memory(raw.get("out_of_memory_on")),
            smaller_batch=_counts(raw.get("smaller_batch")),
        )


@dataclass(frozen=True, slots=True)
class TrainState:
    """train.json of an attempt: where its training is. A run without one has not begun its first step."""

    step: int = 0
    """The last optimizer step."""
    max_steps: int | None = None
    resumed_from: int = 0
    """The step that it began with."""
    saves: int = 0
    """Checkpoints that it has saved."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds by phase."""

    @property
    def startup_seconds(self) -> float:
        """Seconds before the first step."""
        return sum(self.phases.get(name, 0.0) for name in BEFORE_STEPS)

    @property
    def step_seconds(self) -> float | None:
        """Seconds of all its optimizer steps; None before the first."""
        seconds = [self.phases[name] for name in STEPS if name in self.phases]
        return sum(seconds) if seconds else None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Nothing is known where there is no such file."""
        raw = read_json(path, lenient=True)
        return cls(
            step=_count(raw.get("global_step")) or 0,
            max_steps=_count(raw.get("max_steps")),
            resumed_from=_count(raw.get("resumed_from")) or 0,
            saves=_count(raw.get("saves")) or 0,
            phases=_seconds(raw.get("phases")) or {},
        )


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _counts(value: object) -> dict[str, int]:
    named = value.items() if isinstance(value, dict) else ()
    return {str(name): count for name, one in named if (count := _count(one)) is not None}


def _memory(value: object) -> Memory | None:
    return Memory(value) if isinstance(value, str) and value in tuple(Memory) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: object) -> dict[str, float] | None:
    if not isinstance(value, dict):
        return None
    known = {str(name): _number(one) for name, one in value.items()}
    return {name: one for name, one in known.items() if one is not None}
