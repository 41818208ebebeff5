"""The cost of a run and a sweep so far: the records of their containers, at the rates stored with the submission.

It only reads, so the same files show the same dollars on any machine.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from modal_app.cloud.job import FETCHED, mark_name
from modal_app.cloud.meter import ContainerRecord, records_of
from modal_app.store.layout import SUBMISSION, StepFolder, Store
from modal_app.store.read_json import parsed_as, read_json
from modal_app.store.step import StepKind
from runner.config.gpus import kind_of_card
from runner.cost.prices import STALE_DAYS, Bill, Origin, Rates, bill, rates_from
from runner.store.ledger import SweepRun
from runner.types import Gpu, PriceTable


@dataclass(frozen=True, slots=True)
class SweepCost:
    """US dollars for all steps that a sweep needs, also those that another sweep launched first."""

    training: Bill
    preparing: Bill
    """Its datasets, and downloads from the hub."""
    rates: Rates
    after: Bill = field(default_factory=Bill)
    """Follow-up steps of its runs."""

    @property
    def bill(self) -> Bill:
        return self.training + self.preparing + self.after

    def as_json(self) -> dict[str, Any]:
        return {
            "dollars": self.bill.dollars,
            "training": self.training.dollars,
            "preparing": self.preparing.dollars,
            "after": self.after.dollars,
            "rates": self.rates.as_json(),
            "as_asked": sorted(self.bill.as_asked),
            "unpriced": sorted(self.bill.unpriced),
        }

    def lines(self, *, going_on: bool) -> list[str]:
        """The total with the sources of its rates, and what is uncertain about it."""
        total = self.bill
        parts = f"{money(self.training.dollars)} training, {money(self.preparing.dollars)} preparing"
        parts += f", {money(self.after.dollars)} after training" if self.after.seconds else ""
        so_far = " so far" if going_on else ""
        lines = [f"{money(total.dollars)}{so_far}: {parts}; rates: {self.rates.sources(total.items)}"]
        if total.as_asked:
            lines.append(f"Charged as the requested GPU: {', '.join(sorted(total.as_asked))}")
        if total.unpriced:
            lines.append(f"Without a price, so not in these dollars: {', '.join(sorted(total.unpriced))}")
        return lines


def money(dollars: float) -> str:
    """Dollars for people: cents, and more digits for small amounts.

    >>> money(12.345), money(0.00123), money(0.00002)
    ('$12.35', '$0.0012', 'under $0.0001')
    """
    if 0 < dollars < 0.0001:
        return "under $0.0001"
    return f"${dollars:.2f}" if dollars >= 0.1 or dollars == 0 else f"${dollars:.4f}"


def sweep_rates(store: Store, sweep: str, keys: Sequence[str]) -> Rates | None:
    """The rates stored with a sweep's submission; if all its runs were done before, those of a sweep with one of them.

    None for a sweep on this machine.
    """
    others = sorted(store.sweeps.glob(f"*/{SUBMISSION}"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in (store.sweeps / sweep / SUBMISSION, *others):
        submission = read_json(path)
        known = {step["key"] for step in submission.get("steps") or ()}
        if submission.get("rates") and (path.parent.name == sweep or known & set(keys)):
            return parsed_as(path, submission["rates"], Rates.from_json)
    return None


def planned_rates(store: Store, table: PriceTable, today: datetime.date) -> Rates:
    """The rates of a submission, without asking Modal: the given ones, otherwise Modal's last ones that are in this
    store if they are recent, otherwise the table's."""
    rates = rates_from(table, {}, today)
    paths = sorted(store.sweeps.glob(f"*/{SUBMISSION}"), key=lambda path: path.stat().st_mtime)
    stored = read_json(paths[-1]).get("rates") if paths else None
    last = parsed_as(paths[-1], stored, Rates.from_json) if stored else None
    if last is None or today - datetime.date.fromisoformat(last.date) > datetime.timedelta(days=STALE_DAYS):
        return rates
    given = {item for item, rate in rates.rates.items() if rate.origin is Origin.GIVEN}
    modals = {item: rate for item, rate in last.rates.items() if rate.origin is Origin.MODAL and item not in given}
    return replace(rates, rates={**rates.rates, **modals}, date=last.date if modals else rates.date)


def fetch_folder(store: Store, name: str) -> StepFolder:
    """The folder of a job that downloads from the hub."""
    path = store.root / FETCHED / mark_name(name)
    return StepFolder(path, done=path)


def containers(folder: StepFolder) -> list[ContainerRecord]:
    """The records of the containers of a step, in the order in which they began it, which need not be that of their
    boots; none for a step that ran on this machine."""
    return sorted(records_of(folder), key=lambda record: record.began_at)


def run_bill(store: Store, key: str, records: Sequence[ContainerRecord], rates: Rates) -> Bill:
    """The cost of a run's containers."""
    return bill(records, rates, requested_gpu(store, key))


def _after_bill(store: Store, key: str, rates: Rates) -> Bill:
    """The cost of a run's follow-up steps, each on one card of the kind that was requested for the run."""
    gpu = requested_gpu(store, key)
    records = [record for step in store.after(key) for record in containers(store.folder(*step))]
    return bill(records, rates, Gpu(gpu.type, 1) if gpu else None)


def requested_gpu(store: Store, key: str) -> Gpu | None:
    """What a run was to train on; None if its request is not stored."""
    gpu = read_json(store.folder(StepKind.TRAIN, key).identity).get("gpu")
    return Gpu(gpu["type"], gpu["count"]) if gpu else None


def allocated(records: Sequence[ContainerRecord]) -> str | None:
    """The GPUs that a run's containers had, by their names in conf/gpu: `2 x h100`. None if none was seen."""
    texts: list[str] = []
    for record in records:
        kinds = [(card.name, kind_of_card(card.name)) for card in record.cards]
        counts = Counter(kind.name if kind else name for name, kind in kinds)
        texts += [f"{count} x {name}" for name, count in counts.items()]
    return ", ".join(dict.fromkeys(texts)) or None


def card_of(records: Sequence[ContainerRecord]) -> str | None:
    """The kind of card that a run really had; None unless all its cards were of one kind in conf/gpu."""
    kinds = {kind_of_card(card.name) for record in records for card in record.cards}
    (kind,) = kinds if len(kinds) == 1 else (None,)
    return kind.name if kind else None


def sweep_cost(store: Store, sweep: str, runs: Sequence[SweepRun]) -> SweepCost | None:
    """The cost of a sweep; None if there is no price, or nothing was rented yet."""
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
    return cost if cost.bill.seconds else None


def facts_of(records: Sequence[ContainerRecord]) -> dict[str, Any]:
    """The containers, as stored in a run's record."""
    return {"containers": [asdict(record) for record in records]} if records else {}
