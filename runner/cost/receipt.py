"""What the seconds of a step were used for: its receipt, also by container. Only reads."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modal_app.cloud.meter import ContainerRecord
from modal_app.store.facts import TrainState
from modal_app.store.layout import Attempt, StepFolder
from modal_app.store.parts import OTHER, WORKER_PARTS, parts_of
from modal_app.store.state import lost, read_outcome
from runner.console.numbers import counted
from runner.console.redact import redact
from runner.cost.prices import Rates, bill
from runner.cost.spent import allocated, containers
from runner.store.ledger import Event, Record
from runner.types import Gpu

QUEUE, BOOT, IDLE, COPY = "queue", "boot", "idle", "copy"
PARTS = (QUEUE, BOOT, IDLE, *(name for name in WORKER_PARTS if name != OTHER), COPY, OTHER)
"""In chronological order. `queue` is not paid for: the step waits for a dataset, a free slot or a machine."""
TRAINING = ("first step", "train")


@dataclass(frozen=True, slots=True)
class InContainer:
    """What one container has done of a step."""

    container: str
    """Modal's id."""
    began_at: float
    """When its seconds begin, in Unix seconds."""
    seconds: float
    """From its boot if this step was its first, otherwise from its last record of another step, to its last record."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Seconds by part, as in the receipt of the step; they add up to `seconds`."""
    dollars: float | None = None
    """Null if there is no price."""
    gpu: str | None = None
    """Its GPUs: `2 x h100`; null if none was seen."""
    ended_because: str = ""
    """Why it took no further run, if something kept it from that: one line, without secrets."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """The seconds of one step, summed over its attempts and containers."""

    seconds: float
    """On Modal, those of its containers; on this machine, the seconds of the attempts."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Seconds by part: queue, boot, idle, import, prepare, load, first step, train, evaluate, save, copy, other. Those
    that took no time are absent. All but `queue` add up to `seconds`."""
    containers: tuple[InContainer, ...] = ()
    """Oldest first; empty on this machine."""


@dataclass(frozen=True, slots=True)
class ContainerReceipt:
    """What one container has done of several runs, and what it took."""

    container: str
    """Modal's id."""
    runs: tuple[str, ...]
    """By key, in the order in which it worked on them."""
    seconds: float
    """The sum over these runs."""
    parts: Mapping[str, float]
    """Seconds by part, which add up to `seconds`."""
    dollars: float | None
    """Null if there is no price."""
    gpu: str | None
    """Its GPUs: `2 x h100`; null if none was seen."""
    ended_because: str
    """Why it took no further run, if something kept it from that: one line, without secrets."""


def receipt_of(
    folder: StepFolder,
    launched_at: Sequence[float] = (),
    rates: Rates | None = None,
    gpu: Gpu | None = None,
    *,
    running: bool = False,
) -> Receipt | None:
    """None if the step has not begun. `launched_at`: the times of the sweep's launches (Unix seconds). `gpu`: that of
    the request. `running`: the newest attempt is running."""
    rented, attempts = containers(folder), folder.attempts()
    spans = [_span(attempt, running=running and attempt is attempts[-1]) for attempt in attempts]
    if not rented and not spans:
        return None
    phases = {attempt.number: TrainState.read(attempt.train_state).phases for attempt in attempts}
    parts_by = {number: parts_of(each) for number, each in phases.items()}
    each = tuple(_in_container(one, parts_by, rates, gpu) for one in rented)
    if each:
        paid, parts = sum(one.seconds for one in each), added(one.parts for one in each)
    else:
        paid = sum(end - start for start, end in spans)
        parts = _adding_up({}, added(parts_by.values()), paid)
    start = min([*(one.began_at for one in each), *(start for start, _ in spans)])
    return Receipt(round(paid, 3), _shown(parts | {QUEUE: _queue(launched_at, start)}), each)


def container_receipts(receipts: Mapping[str, Receipt]) -> list[ContainerReceipt]:
    """The containers of some runs, in the order in which they began. `receipts`: by run key."""
    found: dict[str, list[tuple[str, InContainer]]] = {}
    every = [(key, one) for key, receipt in receipts.items() for one in receipt.containers]
    for key, one in sorted(every, key=lambda pair: pair[1].began_at):
        found.setdefault(one.container, []).append((key, one))
    return [_container(name, pairs) for name, pairs in found.items()]


def replaced_note(receipts: Iterable[Receipt]) -> str:
    """A sentence about the containers that could have taken another run, and after which another one had to boot, with
    the reasons; empty if there is none."""
    each: dict[str, list[InContainer]] = {}
    for one in sorted((one for receipt in receipts for one in receipt.containers), key=lambda one: one.began_at):
        each.setdefault(one.container, []).append(one)
    newest = max((records[0].began_at for records in each.values()), default=0.0)
    lasts = [records[-1] for records in each.values()]
    why = Counter(one.ended_because for one in lasts if one.ended_because and one.began_at < newest)
    if not why:
        return ""
    reasons = "; ".join(f"{reason} ({number})" for reason, number in why.most_common())
    return f"{why.total()} of {len(each)} containers took no further run, so others had to boot: {reasons}."


def launches(records: Sequence[Record]) -> list[float]:
    return [record.at for record in records if record.event is Event.LAUNCHED]


def added(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Their sum by part."""
    total: dict[str, float] = {}
    for parts in each:
        for name, seconds in parts.items():
            total[name] = total.get(name, 0.0) + seconds
    return total


def totals(runs: Sequence[Receipt], datasets: Sequence[Receipt]) -> dict[str, Any]:
    """Totals of a sweep: the runs' seconds by part, their sum, the share of it that was training, and, in none of
    these, the seconds of the datasets."""
    share = training_share(runs)
    return {
        "parts": _shown(added(one.parts for one in runs)),
        "datasets": round(sum(one.seconds for one in datasets), 3),
        "paid": round(sum(one.seconds for one in runs), 3),
        "training_share": None if share is None else round(share, 4),
    }


def training_share(receipts: Sequence[Receipt]) -> float | None:
    """The share of the runs' seconds that was training; None if there are none. Preparing a dataset, which several runs
    share, is not part of it."""
    paid = sum(one.seconds for one in receipts)
    return sum(one.parts.get(name, 0.0) for one in receipts for name in TRAINING) / paid if paid else None


def containers_line(receipts: Sequence[Receipt], number: int) -> str:
    """How many runs were spared a boot, for people; empty on this machine. `number`: of their containers."""
    rented = [one for one in receipts if one.containers]
    if not rented:
        return ""
    spared = sum(not any(each.parts.get(BOOT) for each in one.containers) for one in rented)
    in_containers = f"{counted(len(rented), 'run')} in {counted(number, 'container')}"
    return f"{in_containers}; {counted(spared, 'run')} began without a boot." if spared else f"{in_containers}."


def _in_container(
    one: ContainerRecord, parts_by: Mapping[int, Mapping[str, float]], rates: Rates | None, gpu: Gpu | None
) -> InContainer:
    """`parts_by`: attempt -> parts of its worker."""
    own = {BOOT: _boot(one), IDLE: one.idle, COPY: one.copying}
    worked = added(parts_by.get(number, {}) for number in one.attempts)
    return InContainer(
        container=one.task,
        began_at=round(one.seen_at - one.seconds, 3),
        seconds=one.seconds,
        parts=_shown(_adding_up(own, worked, one.seconds)),
        dollars=bill([one], rates, gpu).dollars if rates else None,
        gpu=allocated([one]),
        ended_because=redact(" ".join(one.ended_because.split())) if one.ended_because else "",
    )


def _container(name: str, pairs: Sequence[tuple[str, InContainer]]) -> ContainerReceipt:
    each = [one for _, one in pairs]
    dollars = [one.dollars for one in each if one.dollars is not None]
    return ContainerReceipt(
        container=name,
        runs=tuple(dict.fromkeys(key for key, _ in pairs)),
        seconds=round(sum(one.seconds for one in each), 3),
        parts=_shown(added(one.parts for one in each)),
        dollars=sum(dollars) if len(dollars) == len(each) else None,
        gpu=each[-1].gpu,
        ended_because=next((one.ended_because for one in reversed(each) if one.ended_because), ""),
    )


def _adding_up(own: Mapping[str, float], worked: Mapping[str, float], paid: float) -> dict[str, float]:
    """The container's own parts and those of its workers; what is in none of them is `other`.

    The record of a killed container ends with its last tick, while its worker may have recorded later seconds. These
    are not in `paid`, so all of the worker's parts are scaled down to fit.
    """
    left, recorded = max(0.0, paid - sum(own.values())), sum(worked.values())
    scale = left / recorded if recorded > left else 1.0
    parts = added([own, {name: seconds * scale for name, seconds in worked.items()}])
    return parts | {OTHER: parts.get(OTHER, 0.0) + max(0.0, left - recorded)}


def _shown(parts: Mapping[str, float]) -> dict[str, float]:
    """In order, rounded, without those that took no time."""
    return {name: round(parts[name], 3) for name in PARTS if parts.get(name, 0.0) >= 0.001}


def _span(attempt: Attempt, *, running: bool) -> tuple[float, float]:
    """Start and end of an attempt, in Unix seconds."""
    if outcome := read_outcome(attempt.result):
        return outcome.started_at, outcome.finished_at
    ended = lost(attempt)
    return ended.started_at, time.time() if running else ended.finished_at


def _boot(one: ContainerRecord) -> float:
    """The seconds of its boot in this step; 0 if another step has paid for the boot."""
    if one.boot is not None:
        return one.boot
    boot = max(0.0, one.began_at - one.booted_at)
    return boot if one.seconds >= one.seen_at - one.booted_at - 1.0 else 0.0


def _queue(launched_at: Sequence[float], start: float) -> float:
    """Seconds from the launch that started it to its start; 0 if no launch of this sweep did."""
    before = [at for at in launched_at if at <= start]
    return start - max(before) if before else 0.0
