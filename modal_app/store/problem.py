"""A problem of a config's value, as the side that knows it reports it. Told to people as a finding."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    key: str
    """In the words of the command line: `gpu.count`."""
    seen: str
    """The value as it would be written; empty where `expected` says all."""
    expected: str
    """What is expected of it and the way out, in a sentence or two."""

    def __str__(self) -> str:
        return f"{self.key}={self.seen}: {self.expected}" if self.seen else self.expected
