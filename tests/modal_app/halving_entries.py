"""The entries of a search in memory, and what is put into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modal_app.halving.entries import TERMS, Entries
from modal_app.halving.snapshot import Reading, Terms


@dataclass(slots=True)
class MemoryEntries:
    found: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def put(self, name: str, value: Mapping[str, Any]) -> bool:
        return self.found.setdefault(name, value) is value

    def get(self, name: str) -> Mapping[str, Any] | None:
        return self.found.get(name)

    def items(self) -> Mapping[str, Mapping[str, Any]]:
        return dict(self.found)


class Paused(Exception):
    """No further operation is done in this step."""


@dataclass(slots=True)
class Stepwise:
    """Does one further operation each time that the same code runs with it, and repeats the earlier results of the
    operations before. So code can be stopped, or killed, between any two operations."""

    entries: Entries
    done: list[Any] = field(default_factory=list)
    at: int = 0
    is_spent: bool = False

    def begin(self) -> None:
        self.at, self.is_spent = 0, False

    def put(self, name: str, value: Mapping[str, Any]) -> bool:
        return bool(self._once(lambda: self.entries.put(name, value)))

    def get(self, name: str) -> Mapping[str, Any] | None:
        raise NotImplementedError(name)

    def items(self) -> Mapping[str, Mapping[str, Any]]:
        found: Mapping[str, Mapping[str, Any]] = self._once(self.entries.items)
        return found

    def _once(self, operation: Any) -> Any:
        if self.at == len(self.done):
            if self.is_spent:
                raise Paused
            self.done.append(operation())
            self.is_spent = True
        self.at += 1
        return self.done[self.at - 1]


def of_terms(
    runs: Mapping[str, float | None],
    fractions: tuple[float, ...] = (0.2, 0.6),
    eta: int = 3,
    *,
    audit: bool = False,
    margin: bool = False,
    keep_rate: bool = False,
) -> MemoryEntries:
    entries = MemoryEntries()
    entries.put(TERMS, Terms(runs, fractions, eta, audit, margin, keep_rate).to_json())
    return entries


def reading(loss: float | None, **others: Any) -> Reading:
    return Reading(**{"loss": loss, "max_steps": 100, "eval_fingerprint": "rows", **others})
