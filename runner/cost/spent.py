"""What a run and a sweep have cost so far: the records of their containers, at the rates that the sweep was submitted
with. Only reads, so whoever has the same files sees the same dollars.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from modal_app.cloud.container import FETCHED, mark_name
from modal_app.cloud.meter import ContainerRecord
from modal_app.store.layout import SUBMISSION, StepFolder, Store
from modal_app.store.read_json import read_json
from modal_app.store.step import StepKind
from runner.config.gpus import kind_of_card
from runner.cost.prices import STALE_DAYS, Bill, Origin, Rates, bill, rates_from
from runner.store.ledger import SweepRun
from runner.types import Gpu, PriceTable


@dataclass(frozen=True, slots=True)
class SweepCost:
    """US dollars for all that a sweep needs, whichever sweep it was done for first."""

    training: Bill
    preparing: Bill
    """Its datasets, and fetching what is on the hub."""
    rates: Rates
    after: Bill = field(default_factory=Bill)
    """What was done with its runs once they had finished: merged, asked, evaluated."""

    @property
    def whole(self) -> Bill:
        return self.training + self.preparing + self.after

    def as_json(self) -> dict[str, Any]:
        return {
            "dollars": self.whole.dollars,
            "training": self.training.dollars,
            "preparing": self.preparing.dollars,
            "after": self.after.dollars,
            "rates": self.rates.as_json(),
            "as_asked": sorted(self.whole.as_asked),
            "unpriced": sorted(self.whole.unpriced),
        }

    def lines(self, *, going_on: bool) -> list[str]:
        """The sum with where its rates are from, and what is not certain in it."""
        whole = self.whole
        parts = f"{money(self.training.dollars)} training, {money(self.preparing.dollars)} preparing"
        parts += f", {money(self.after.dollars)} after training" if self.after.seconds else ""
        so_far = " so far" if going_on else ""
        told = [f"{money(whole.dollars)}{so_far}: {parts}; rates: {self.rates.told(whole.items)}"]
        if whole.as_asked:
            told.append(f"Priced as what was asked for: {', '.join(sorted(whole.as_asked))}")
        if whole.unpriced:
            told.append(f"Without a price, so not in these dollars: {', '.join(sorted(whole.unpriced))}")
        return told


def money(dollars: float) -> str:
    """Dollars for people: cents, and more digits where that would be nothing.

    >>> money(12.345), money(0.00123), money(0.00002)
    ('$12.35', '$0.0012', 'under $0.0001')
    """
    if 0 < dollars < 0.0001:
        return "under $0.0001"
    return f"${dollars:.2f}" if dollars >= 0.1 or dollars == 0 else f"${dollars:.4f}"


def sweep_rates(store: Store, sweep: str, keys: Sequence[str]) -> Rates | None:
    """The rates that a sweep was submitted with, or, when all of it had been done before, a sweep with one of its runs.

    None for a sweep that runs on this machine.
    """
    others = sorted(store.sweeps.glob(f"*/{SUBMISSION}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in (store.sweeps / sweep / SUBMISSION, *others):
        submission = read_json(path)
        known = {step["key"] for step in submission.get("steps", ())}
        if submission.get("rates") and (path.parent.name == sweep or known & set(keys)):
            return Rates.from_json(submission["rates"])
    return None


def planned_rates(store: Store, table: PriceTable, today: datetime.date) -> Rates:
    """What a submission would be charged, without asking: as given, else as Modal said it last to this store, if that
    is not long ago, else by the table."""
    rates = rates_from(table, {}, today)
    paths = sorted(store.sweeps.glob(f"*/{SUBMISSION}"), key=lambda path: path.stat().st_mtime)
    said = read_json(paths[-1]).get("rates") if paths else None
    last = Rates.from_json(said) if said else None
    if last is None or today - datetime.date.fromisoformat(last.date) > datetime.timedelta(days=STALE_DAYS):
        return rates
    modals = {
        item: rate
        for item, rate in last.rates.items()
        if rate.origin is Origin.MODAL and rates.rates[item].origin is Origin.TABLE
    }
    return replace(rates, rates={**rates.rates, **modals}, date=last.date if modals else rates.date)


def fetch_folder(store: Store, name: str) -> StepFolder:
    """Of a job that fetches something from the hub."""
    path = store.root / FETCHED / mark_name(name)
    return StepFolder(path, done=path)


def containers(folder: StepFolder) -> list[ContainerRecord]:
    """What each container has spent on a step, oldest first; none for a step that ran on this machine."""
    found = [ContainerRecord.from_json(path.read_text(encoding="utf-8")) for path in folder.containers.glob("*.json")]
    return sorted(found, key=lambda record: record.booted_at)


def run_bill(store: Store, key: str, records: Sequence[ContainerRecord], rates: Rates) -> Bill:
    """What the containers of a run cost."""
    asked = read_json(store.folder(StepKind.TRAIN, key).identity).get("gpu")
    return bill(records, rates, Gpu(asked["type"], asked["count"]) if asked else None)


def _after_bill(store: Store, key: str, rates: Rates) -> Bill:
    """What came after a run, each step on one card of the kind that the run asked for."""
    asked = read_json(store.folder(StepKind.TRAIN, key).identity).get("gpu")
    records = [record for step in store.after(key) for record in containers(store.folder(*step))]
    return bill(records, rates, Gpu(asked["type"], 1) if asked else None)


def allocated(records: Sequence[ContainerRecord]) -> str | None:
    """The GPUs that a run's containers had, in conf/gpu's names: `2 x h100`. None where none was seen."""
    told = []
    for record in records:
        kinds = [(card.name, kind_of_card(card.name)) for card in record.cards]
        counts = Counter(kind.name if kind else name for name, kind in kinds)
        told += [f"{count} x {name}" for name, count in counts.items()]
    return ", ".join(dict.fromkeys(told)) or None


def sweep_cost(store: Store, sweep: str, runs: Sequence[SweepRun]) -> SweepCost | None:
    """None where there is no price, or nothing was rented yet."""
    keys = [run.key for run in runs]
    rates = sweep_rates(store, sweep, keys)
    if rates is None:
        return None
    bills = [run_bill(store, key, containers(store.folder(StepKind.TRAIN, key)), rates) for key in keys]
    folders = [store.folder(StepKind.PREPROCESS, key) for key in dict.fromkeys(run.data_key for run in runs)]
    submitted = read_json(store.sweeps / sweep / SUBMISSION).get("steps", ())
    fetches = {name for step in submitted for name in step.get("fetches", ())}
    folders += [fetch_folder(store, name) for name in sorted(fetches)]
    preparing = [bill(containers(folder), rates) for folder in folders]
    later = [_after_bill(store, key, rates) for key in keys]
    cost = SweepCost(sum(bills, Bill()), sum(preparing, Bill()), rates, sum(later, Bill()))
    return cost if cost.whole.seconds else None


def facts_of(records: Sequence[ContainerRecord]) -> dict[str, Any]:
    """The containers as they stand in a run's record."""
    return {"containers": [asdict(record) for record in records]} if records else {}
