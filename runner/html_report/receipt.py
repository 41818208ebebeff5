"""What the seconds of a sweep were used for, for each run and dataset."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modal_app.cloud.meter import ContainerRecord
from modal_app.store.facts import TrainState
from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.read_json import read_json
from modal_app.store.state import lost
from runner.cost.spent import containers
from runner.store.ledger import Event, Record

PARTS = ("queue", "boot", "import", "prepare", "load", "first step", "train", "eval", "save", "other")
"""In chronological order. `queue` is not paid for: the step waits for a dataset, a free slot or a machine."""
TRAINING = ("first step", "train")

_PART_OF = {"import": "import", "config": "prepare", "prepare": "prepare", "load": "load", "first": "first step"}
_PART_OF |= {"train": "train", "eval": "eval", "save": "save"}


@dataclass(frozen=True, slots=True)
class Receipt:
    """The seconds of one step, summed over its attempts and containers."""

    paid: float
    """On Modal, from each container's boot to its last record; on this machine, the seconds of the attempts."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """By name in PARTS, without those that took no time. All but `queue` add up to `paid`."""


def receipt(folder: StepFolder, launched_at: Sequence[float], *, running: bool = False) -> Receipt:
    """`launched_at`: the times of the sweep's launches (Unix seconds). `running`: the newest attempt is running."""
    rented, attempts = containers(folder), folder.attempts()
    spans = [_span(attempt, running=running and attempt is attempts[-1]) for attempt in attempts]
    parts: dict[str, float] = {}
    for attempt in attempts:
        for name, seconds in TrainState.read(attempt.train_state).phases.items():
            part = _PART_OF.get(name, "other")
            parts[part] = parts.get(part, 0.0) + seconds
    parts["boot"] = sum(_boot(one) for one in rented)
    paid = sum(one.seconds for one in rented) if rented else sum(end - start for start, end in spans)
    parts["other"] = parts.get("other", 0.0) + max(0.0, paid - sum(parts.values()))
    starts = [one.booted_at for one in rented if _boot(one)] or [start for start, _ in spans]
    parts["queue"] = _queue(launched_at, min(starts)) if starts else 0.0
    return Receipt(round(paid, 3), {name: round(parts[name], 3) for name in PARTS if parts.get(name, 0.0) >= 0.001})


def launches(records: Sequence[Record]) -> list[float]:
    return [record.at for record in records if record.event is Event.LAUNCHED]


def totals(runs: Sequence[Receipt], datasets: Sequence[Receipt]) -> dict[str, Any]:
    """Totals of a sweep: seconds by part, seconds of the datasets, and the share of the paid time that was training."""
    parts = {name: sum(one.parts.get(name, 0.0) for one in runs) for name in PARTS}
    preparing = sum(one.paid for one in datasets)
    paid = sum(one.paid for one in runs) + preparing
    training = sum(parts[name] for name in TRAINING)
    return {
        "parts": {name: round(seconds, 3) for name, seconds in parts.items() if seconds},
        "datasets": round(preparing, 3),
        "paid": round(paid, 3),
        "training_share": round(training / paid, 4) if paid else None,
    }


def _span(attempt: Attempt, *, running: bool) -> tuple[float, float]:
    """Start and end of an attempt, in Unix seconds."""
    if result := read_json(attempt.result, lenient=True):
        return float(result["started_at"]), float(result["finished_at"])
    ended = lost(attempt)
    return ended.started_at, time.time() if running else ended.finished_at


def _boot(one: ContainerRecord) -> float:
    """The seconds of its boot, if this step was its first; otherwise, another step has paid for the boot."""
    boot = max(0.0, one.began_at - one.booted_at)
    return boot if one.seconds >= one.seen_at - one.booted_at - 1.0 else 0.0


def _queue(launched_at: Sequence[float], start: float) -> float:
    """Seconds from the launch that started it to its start; 0 if no launch of this sweep did."""
    before = [at for at in launched_at if at <= start]
    return start - max(before) if before else 0.0
