"""`budget=DOLLARS` among the words of a verb."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

from runner.errors import SweepError

BUDGET = "budget="


def with_budget(verb: str, words: Sequence[str]) -> tuple[list[str], float | None]:
    """The other words, and the dollars. Raises SweepError for a value that is not an amount, and for two amounts."""
    budgets = [word.removeprefix(BUDGET) for word in words if word.startswith(BUDGET)]
    if len(budgets) > 1:
        raise SweepError(f"{verb} takes one {BUDGET}DOLLARS; found {' '.join(words)}.")
    return [word for word in words if not word.startswith(BUDGET)], dollars(budgets[0]) if budgets else None


def dollars(text: str) -> float:
    with contextlib.suppress(ValueError):
        if (value := float(text)) > 0 and math.isfinite(value):
            return value
    raise SweepError(f"{BUDGET}{text}: expected US dollars, more than 0.")
