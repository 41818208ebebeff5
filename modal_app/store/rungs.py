"""Where the runs of a search are compared before their end, and how many of them go on: part of a train step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rungs:
    """In no key: a run that goes on is the same run."""

    search: str
    """The id that the search's entries are kept under: the sweep's, and a hash of these terms."""
    fractions: tuple[float, ...]
    """Of a run's steps, ascending, each above 0 and below 1. Rung 1 is at the first."""
    eta: int
    """One run in so many goes on from each rung."""
    audit: bool = True
    """Whether one run in ten never stops, to see what stopping has missed."""

    def steps(self, max_steps: int) -> tuple[int, ...]:
        """The optimizer step of each rung of a run of so many steps: rung k is at element k - 1. 0 stands for one that
        a run of so few steps does not have.

        >>> Rungs("", (0.2, 0.6), 3).steps(60)
        (12, 36)
        >>> Rungs("", (0.2, 0.6), 3).steps(2)
        (0, 1)
        """
        found: list[int] = []
        for fraction in self.fractions:
            step = round(fraction * max_steps)
            found.append(step if max(found, default=0) < step < max_steps else 0)
        return tuple(found)

    def at(self, step: int, max_steps: int) -> int:
        """The rung at a step; 0 if there is none."""
        steps = self.steps(max_steps)
        return steps.index(step) + 1 if step and step in steps else 0


def named(text: Sequence[float]) -> str:
    """Fractions as a message has them.

    >>> named((0.2, 0.6))
    '20 % and 60 %'
    """
    return " and ".join(f"{100 * one:g} %" for one in text)
