"""A store that counts how often each step's folder is requested: looking is expensive if a thousand runs wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from modal_app.store.layout import StepFolder, Store
from modal_app.store.step import StepKind


@dataclass(frozen=True)
class CountingStore(Store):
    asked: Counter[str] = field(default_factory=Counter)
    """By step key."""

    def folder(self, kind: StepKind, key: str) -> StepFolder:
        self.asked[key] += 1
        return super().folder(kind, key)
