"""For a search that chooses its points while it runs: the axes from Hydra, and a way to compose points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runner.composing.axes import Job, SearchSpace
from runner.types import Experiment

Compose = Callable[[Sequence[Job]], list[Experiment]]
"""Raises SweepError with the problems of all jobs together."""


@dataclass(frozen=True, slots=True)
class SearchInput:
    space: SearchSpace
    compose: Compose
