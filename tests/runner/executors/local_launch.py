"""A launch on this machine whose workers only pretend to train, for the tests of LocalExecutor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from modal_app.store.step import Step, StepKind
from runner.executors.local import LocalExecutor, Watch
from runner.executors.slots import Slots
from runner.store.ledger import Ledger, Record
from runner.types import Gpu, Plan, Run
from tests.runner.builders import run
from tests.runner.executors.fakes import FakeWorkers, Rival

TWO_CORES = Slots(2)
Begin = Callable[[StepKind, str], Rival]
"""Lets another launcher begin to work on a step."""


def gpus(number: int) -> Slots:
    return Slots(number, cards=tuple(map(str, range(number))))


def runs_of(count: int, ranks: int = 1, gpu: str = "cpu") -> list[Run]:
    return [run({"learning_rate": number}, gpu=Gpu(gpu, ranks)) for number in range(count)]


def execute(
    planned: Plan,
    workers: FakeWorkers,
    slots: Slots = TWO_CORES,
    watch: Watch = lambda: None,
    card_locks: Path | None = None,
) -> dict[str, list[Record]]:
    """Run the plan; returns the resulting records, by step."""
    ledger = Ledger(workers.store, planned.sweep)
    ledger.open(planned, "axosweep -m")
    locks = card_locks or workers.store.root / "cards"
    try:
        LocalExecutor(workers.store, workers, slots, ledger, locks).execute(planned, watch)
    finally:
        assert workers.closed
    return recorded(ledger)


def recorded(ledger: Ledger) -> dict[str, list[Record]]:
    by_step: dict[str, list[Record]] = {}
    for record in ledger.records()[1:]:
        by_step.setdefault(record.key, []).append(record)
    return by_step


def events(records: list[Record]) -> list[str]:
    return [record.status or str(record.event) for record in records]


def names(steps: list[Step]) -> list[str]:
    return [step.key for step in steps]


def after(calls: int, what: Callable[[], object]) -> Watch:
    """Do something once, while the executor waits."""
    left = calls

    def watch() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            what()

    return watch
