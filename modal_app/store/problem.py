"""A problem with a value of a config, as either side reports it. People see it as a finding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    key: str
    """In the words of the command line: `gpu.count`."""
    seen: str
    """The value as it would be written; empty where `expected` says all."""
    expected: str
    """What is expected of the value, and what to do, in a sentence or two."""

    def __str__(self) -> str:
        return f"{self.key}={self.seen}: {self.expected}" if self.seen else self.expected
