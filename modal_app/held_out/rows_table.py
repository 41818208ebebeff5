"""The losses of held-out rows as a table for W&B."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modal_app.held_out.row_losses import RowLosses
from modal_app.store.redact import redacted

MOST_ROWS = 10_000
"""W&B shows no more rows of a table, and each run uploads its own."""
COLUMNS = ("id", "dataset", "tokens", "nll")


@dataclass(frozen=True, slots=True)
class RowsTable:
    columns: tuple[str, ...]
    data: list[list[Any]]


def rows_table(losses: RowLosses) -> RowsTable | None:
    """None if there are more than MOST_ROWS. The dataset is empty where it is unknown."""
    if len(losses.id) > MOST_ROWS:
        return None
    names = redacted(list(losses.about.datasets))
    datasets = [names[number] if names else "" for number in losses.dataset]
    ids = [f"{one:016x}" for one in losses.id.tolist()]
    figures = (losses.row_tokens.astype(int).tolist(), losses.row_nll.tolist())
    return RowsTable(COLUMNS, [list(row) for row in zip(ids, datasets, *figures, strict=True)])
