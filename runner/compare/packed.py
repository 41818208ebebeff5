"""Runs of one table, some of which evaluate packed rows -> a note on how to read their eval losses."""

from __future__ import annotations

from collections.abc import Sequence

from runner.compare.ranking import EVAL_LOSS, Metric, Row
from runner.compare.row_losses import config_of, judgeable

NOTE = (
    "Some of these runs evaluate packed rows, others do not (sample_packing, eval_sample_packing). The eval loss "
    "is a mean over batches, and their batches have different rows, so small differences between the two kinds "
    "mean nothing. A verdict uses the mean over tokens, which does not depend on packing."
)


def packed_notes(rows: Sequence[Row], metric: Metric) -> list[str]:
    """The note, if runs of both kinds are ranked together by their eval loss."""
    kinds: dict[str | None, set[bool]] = {}
    for row in judgeable(rows) if metric == EVAL_LOSS else ():
        kinds.setdefault(row.eval_fingerprint, set()).add(_evaluates_packed_rows(row))
    return [NOTE] if any(len(found) > 1 for found in kinds.values()) else []


def _evaluates_packed_rows(row: Row) -> bool:
    """As Axolotl does: an evaluation is packed as the training is, unless eval_sample_packing says no."""
    config = config_of(row)
    return bool(config.get("sample_packing")) and config.get("eval_sample_packing") is not False
