"""What a container has spent on a step: the record that its price is computed from. Standard library.

The record is rewritten at each tick, so a container that is killed leaves one that ends at its last tick. Its seconds
are those of the monotonic clock: the wall clock may be set while the container works.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from modal_app.cloud.usage import GpuReading, container_age, cpu_seconds, memory_gib, read_cards
from modal_app.store.layout import StepFolder
from modal_app.store.read_json import fields_of, read_as
from modal_app.store.step import write_atomically

THREADS_PER_CORE = 2
"""Modal reserves and bills physical cores; processes are measured in hardware threads."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a function reserves at Modal. What it uses beyond that is billed, too."""

    cores: float
    """Physical ones."""
    memory_gib: float


CPU_STEP = Reservation(cores=4.0, memory_gib=16.0)
"""Of the functions that prepare."""


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, as nvidia-smi describes it."""

    name: str
    memory_mib: int | None
    peak_mib: int | None
    """The most that was in use at a tick: there may have been more in between."""
    utilisation: float | None
    """Percent, the mean of the ticks; None before the first."""


@dataclass(frozen=True, slots=True)
class ContainerRecord:
    """What one container has spent on one step. Times are Unix seconds."""

    task: str
    """Modal's id of the container."""
    call: str
    step: str
    """The job's name: `train/<key>`."""
    booted_at: float
    """The start of the container, as far as that is known."""
    began_at: float
    """The start of this call."""
    seen_at: float
    """The last tick, or the end."""
    ended: bool
    """False in the record of a container that still works, or that was killed."""
    seconds: float
    """All that it has spent on this step: with its boot if this step was its first, without its other steps."""
    attempts: tuple[int, ...]
    cards: tuple[Card, ...]
    cores_reserved: float
    cores_used: float | None
    """The mean, in physical cores; None where it was not measured."""
    memory_gib_reserved: float
    memory_gib_used: float | None
    """The mean of the ticks."""
    boot: float | None = None
    """Of its seconds, those before the container's first call; None in older records, which do not have it
    separately."""
    idle: float = 0.0
    """Of its seconds, those between the container's last record, of an earlier call, and this call."""
    copying: float = 0.0
    """Of its seconds, those after the worker's end in which files were copied to a Volume and committed."""
    ended_because: str = ""
    """Why the container took no further call; empty while it may, and where it could not say so."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Self:
        """Raises KeyError or TypeError for anything that is not a record."""
        cards = tuple(Card(**fields_of(Card, card)) for card in raw["cards"])
        return cls(**{**fields_of(cls, raw), "cards": cards, "attempts": tuple(raw["attempts"])})


@dataclass(slots=True)
class _Mean:
    total: float = 0.0
    count: int = 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total += value
            self.count += 1

    @property
    def value(self) -> float | None:
        return round(self.total / self.count, 3) if self.count else None


@dataclass(slots=True)
class _Samples:
    """The readings of one card."""

    card: GpuReading
    peak_mib: int | None = None
    utilisation: _Mean = field(default_factory=_Mean)

    def add(self, now: GpuReading) -> None:
        self.utilisation.add(now.utilisation)
        if now.used_mib is not None:
            self.peak_mib = max(now.used_mib, self.peak_mib or 0)


_recorded_until: float | None = None
"""Until when the seconds of this container are in a record, on the monotonic clock: it may work on several steps, one
after the other."""
_last: Meter | None = None
"""The last one of this container."""


def end_container(reason: str) -> None:
    """Add to this container's last record why it takes no further call."""
    if _last is not None:
        _last.end_container(reason)


class Meter:
    """Writes the record of this container for an attempt at a step to `folder`, from now until `end`.

    Each of its methods brings the record up to date; call one before each commit.
    """

    def __init__(self, folder: Path, *, step: str, call: str, attempt: int, reserved: Reservation) -> None:
        global _last
        _last = self
        self._task = os.environ.get("MODAL_TASK_ID", "unknown")
        self._path = folder / f"{self._task}.json"
        before = _read(self._path)  # the same container may try again
        self._before = before
        self._attempts = (*(before.attempts if before else ()), attempt)
        self._step, self._call, self._reserved = step, call, reserved
        age_s, self._began, self._began_at = container_age(), time.monotonic(), time.time()
        self._booted_at = self._began_at - age_s
        self._first = _recorded_until is None
        self._from = self._began - age_s if _recorded_until is None else _recorded_until
        self._copied, self._copies_since = 0.0, math.inf
        self._ended, self._reason = False, ""
        self._writing = threading.Lock()  # a tick that has hung must not write an older record over the last one
        self._cpu_before = cpu_seconds()
        self._cards: list[_Samples] = []
        self._memory = _Mean()
        self._find_cards(read_cards())  # still idle: their names are recorded, not how busy they are
        self.note()

    def note(self) -> None:
        """Update the record without measuring: there may be little time."""
        self._write()

    def end(self) -> None:
        """The last record, unless another attempt is made here."""
        self._ended = True
        self._write()

    @contextlib.contextmanager
    def copying(self) -> Iterator[None]:
        """The worker has ended, and during the block its files are copied to a Volume and committed."""
        self._copies_since = time.monotonic()
        try:
            yield
        finally:
            self._copied += time.monotonic() - self._copies_since
            self._copies_since = math.inf
            self._write()

    def end_container(self, reason: str) -> None:
        """The container takes no further call, for that reason. It may come before or after `end`."""
        self._reason = reason
        self._write()

    def tick(self) -> None:
        """Measure."""
        cards = read_cards()
        if self._ended:
            return  # nvidia-smi has hung until after the last record
        self._find_cards(cards)
        for samples, card in zip(self._cards, cards, strict=False):
            samples.add(card)
        self._memory.add(memory_gib())
        self._write()

    def _find_cards(self, cards: Sequence[GpuReading]) -> None:
        if not self._cards:
            self._cards = [_Samples(card) for card in cards]

    def _write(self) -> None:
        with self._writing:
            self._write_now()

    def _write_now(self) -> None:
        global _recorded_until
        _recorded_until = now = time.monotonic()
        waited, before = max(0.0, self._began - self._from), self._before
        record = ContainerRecord(
            task=self._task,
            call=self._call,
            step=self._step,
            booted_at=round(self._booted_at, 3),
            began_at=round(self._began_at, 3),
            seen_at=round(self._began_at + now - self._began, 3),
            ended=self._ended,
            seconds=round((before.seconds if before else 0.0) + max(0.0, now - self._from), 3),
            attempts=self._attempts,
            cards=tuple(
                Card(one.card.name, one.card.memory_mib, one.peak_mib, one.utilisation.value) for one in self._cards
            ),
            cores_reserved=self._reserved.cores,
            cores_used=self._cores_used(now),
            memory_gib_reserved=self._reserved.memory_gib,
            memory_gib_used=self._memory.value,
            boot=round((before.boot or 0.0 if before else 0.0) + (waited if self._first else 0.0), 3),
            idle=round((before.idle if before else 0.0) + (0.0 if self._first else waited), 3),
            copying=round((before.copying if before else 0.0) + self._copied + max(0.0, now - self._copies_since), 3),
            ended_because=self._reason,
        )
        with contextlib.suppress(OSError):  # a record that cannot be written does not end the training
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, record.to_json())

    def _cores_used(self, now: float) -> float | None:
        cpu, passed = cpu_seconds(), now - self._began
        if cpu is None or self._cpu_before is None or passed < 1.0:
            return None
        return round(max(0.0, cpu - self._cpu_before) / passed / THREADS_PER_CORE, 3)


def records_of(folder: StepFolder) -> list[ContainerRecord]:
    """Those of all containers that have worked on a step, in no order. One that cannot be read is left out."""
    return [one for one in map(_read, folder.containers.glob("*.json")) if one is not None]


def _read(path: Path) -> ContainerRecord | None:
    return read_as(path, ContainerRecord.of)
