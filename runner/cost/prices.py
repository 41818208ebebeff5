"""The prices of rented machines: rates with their origins, and the dollars of a container. Pure, without Modal."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from modal_app.cloud.meter import ContainerRecord
from modal_app.store.problem import Problem
from runner.config.gpus import GPUS, kind_of_card
from runner.types import Gpu, PriceTable

STALE_DAYS = 90
"""A price table that is older causes a warning."""

CPU = "cpu"
MEMORY = "memory"


class Origin(StrEnum):
    """The source of a rate."""

    MODAL = "modal"
    """Modal's own answer."""
    TABLE = "table"
    """conf/prices."""
    GIVEN = "given"
    """Set on the command line."""


@dataclass(frozen=True, slots=True)
class Rate:
    dollars: float
    """Per second, of one unit."""
    origin: Origin


@dataclass(frozen=True, slots=True)
class Rates:
    """US dollars per second of one physical core (`cpu`), one GiB (`memory`), or one card (by its name in conf/gpu)."""

    rates: Mapping[str, Rate]
    date: str
    """The day when they were read."""
    table_date: str
    """The table's own date."""

    def of(self, item: str) -> float | None:
        rate = self.rates.get(item)
        return None if rate is None else rate.dollars

    def sources(self, items: Iterable[str]) -> str:
        """The sources of these items' rates, for people: `Modal's of 2026-11-24`."""
        by_origin: dict[Origin, list[str]] = {}
        for item in sorted(set(items) & set(self.rates)):
            by_origin.setdefault(self.rates[item].origin, []).append(item)
        parts = [(self._source(origin), by_origin[origin]) for origin in Origin if origin in by_origin]
        if len(parts) == 1:
            return parts[0][0]
        return "; ".join(f"{', '.join(names)}: {source}" for source, names in parts)

    def _source(self, origin: Origin) -> str:
        match origin:
            case Origin.MODAL:
                return f"Modal's of {self.date}"
            case Origin.TABLE:
                old = f", over {STALE_DAYS} days old then" if self.is_stale else ""
                return f"table of {self.table_date}{old}"
            case Origin.GIVEN:
                return "as given"

    @property
    def is_stale(self) -> bool:
        """Whether the table was already old when the rates were read."""
        return _day(self.date) - _day(self.table_date) > datetime.timedelta(days=STALE_DAYS)

    def uses(self, origin: Origin) -> bool:
        return any(rate.origin is origin for rate in self.rates.values())

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        rates = {item: Rate(one["dollars"], Origin(one["origin"])) for item, one in raw["rates"].items()}
        return cls(**{**raw, "rates": rates})


def rates_from(table: PriceTable, modal: Mapping[str, float], today: datetime.date) -> Rates:
    """For each item: the given rate, otherwise Modal's, otherwise the table's.

    `modal` is Modal's own mapping of names to dollars: `gpu_hour_cost_h100`, `cpu_hour_cost`, `mem_gib_hour_cost`.
    Modal may change its names, so any of them may be missing.
    """
    ours = {**table.gpu, CPU: table.cpu, MEMORY: table.memory}
    given = {name.removeprefix("gpu.") for name in table.given}
    rates = {item: Rate(dollars, Origin.GIVEN if item in given else Origin.TABLE) for item, dollars in ours.items()}
    for item, name in _MODAL_NAMES.items():
        hourly = modal.get(name)
        if item not in given and hourly is not None and math.isfinite(hourly) and hourly > 0:
            rates[item] = Rate(hourly / 3600, Origin.MODAL)
    return Rates(rates, today.isoformat(), table.date)


_MODAL_NAMES = {
    **{kind.name: f"gpu_hour_cost_{kind.rate}" for kind in GPUS.values()},
    CPU: "cpu_hour_cost",
    MEMORY: "mem_gib_hour_cost",
}


def table_problems(table: PriceTable) -> list[Problem]:
    """The problems of a price table."""
    numbers = {f"gpu.{name}": value for name, value in table.gpu.items()}
    numbers |= {CPU: table.cpu, MEMORY: table.memory, "volume": table.volume}
    problems = [
        Problem(f"prices.{name}", str(value), "US dollars, zero or more.")
        for name, value in numbers.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf
    ]
    try:
        _day(table.date)
    except (TypeError, ValueError):
        problems.append(Problem("prices.date", str(table.date), "a day, as in 2026-09-20."))
    return problems


@dataclass(frozen=True, slots=True)
class Bill:
    """The cost of containers."""

    seconds: float = 0.0
    """Of all containers, each from its start to its last record."""
    dollars: float = 0.0
    items: frozenset[str] = frozenset()
    """The charged items: names in conf/gpu, `cpu`, `memory`."""
    as_asked: frozenset[str] = frozenset()
    """Cards that the driver did not show, or with a name that is not in conf/gpu. They are charged as the requested
    card."""
    unpriced: frozenset[str] = frozenset()
    """Items without a rate, which are not charged."""

    def __add__(self, other: Bill) -> Bill:
        return Bill(
            self.seconds + other.seconds,
            self.dollars + other.dollars,
            self.items | other.items,
            self.as_asked | other.as_asked,
            self.unpriced | other.unpriced,
        )


def bill(records: Iterable[ContainerRecord], rates: Rates, requested: Gpu | None = None) -> Bill:
    """The sum over containers of seconds x (the cards that they really had + cores + GiB), each at its rate.

    `requested`: the GPU of the run; None for steps on CPUs.
    """
    return sum((_bill(record, rates, requested) for record in records), Bill())


def _bill(record: ContainerRecord, rates: Rates, requested: Gpu | None) -> Bill:
    amounts, as_asked = _cards(record, requested)
    # The larger of what is reserved and what is used: modal.com/docs/guide/resources.
    amounts[CPU] = max(record.cores_reserved, record.cores_used or 0.0)
    amounts[MEMORY] = max(record.memory_gib_reserved, record.memory_gib_used or 0.0)
    unpriced = frozenset(item for item in amounts if rates.of(item) is None)
    per_second = sum(amount * (rates.of(item) or 0.0) for item, amount in amounts.items())
    return Bill(record.seconds, record.seconds * per_second, frozenset(amounts) - unpriced, as_asked, unpriced)


def _cards(record: ContainerRecord, requested: Gpu | None) -> tuple[dict[str, float], frozenset[str]]:
    """How many cards of each kind a container had, and the names of cards that are charged as the requested one."""
    kinds = [(card.name, kind_of_card(card.name)) for card in record.cards]
    amounts = Counter(kind.name for _, kind in kinds if kind is not None)
    unknown = [name for name, kind in kinds if kind is None]
    if requested is None or requested.type == "cpu":
        return dict(amounts), frozenset()
    if not kinds:
        return {requested.type: float(requested.count)}, frozenset(
            {f"{requested.count} x {requested.type} (no card was seen)"}
        )
    amounts[requested.type] += len(unknown)
    return {name: float(count) for name, count in amounts.items() if count}, frozenset(unknown)


def _day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)
