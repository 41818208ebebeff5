"""Dollars by which runs are ranked: each run counts with an even share of what starting them has taken.

What was paid depends on the place in a container: the first run pays for the boot, and for imports that later runs find
warm; a later one pays for the wait before it. None of this comes from the settings. Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from runner.compare.ranking import Row
from runner.cost.receipt import BOOT, IDLE

STARTING = (BOOT, IDLE, "import")


def even_dollars(rows: Sequence[Row]) -> Mapping[str, float | None]:
    """Dollars by run key. In place of its own boot, waiting and imports, each run counts with the mean of all these
    runs, at its own rate. What was paid where the receipt is unknown; None without a price."""
    starting = {row.key: one for row in rows if (one := _starting(row)) is not None}
    mean = statistics.fmean(starting.values()) if starting else 0.0
    return {row.key: _even(row, mean - starting[row.key]) if row.key in starting else row.dollars for row in rows}


def _starting(row: Row) -> float | None:
    """Paid seconds of its starts; None if they are unknown."""
    if row.dollars is None or row.receipt is None or not row.receipt.seconds:
        return None
    return sum(row.receipt.parts.get(name, 0.0) for name in STARTING)


def _even(row: Row, more_seconds: float) -> float:
    assert row.dollars is not None
    assert row.receipt is not None
    return row.dollars * (1 + more_seconds / row.receipt.seconds)
