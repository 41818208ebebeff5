"""The rows of a run's datasets before they are prepared: counted in files on this machine, otherwise as declared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.config.numbers import number
from runner.cost.types import Rows
from runner.estimate.records import KnownRecords, PastDatasets, data_paths
from runner.preflight.data import SPLIT_INTO_PIECES, datasets_of, held_out_of, rows_taken, split_of
from runner.preflight.jsonl import check_rows
from runner.preflight.splits import rows_of_split
from runner.types import DatasetSize, Experiment

CHARACTERS_PER_TOKEN = 4.0


def rows_before_preparing(experiment: Experiment, known: KnownRecords) -> Rows | None:
    """None while the rows of a dataset are unknown. The lengths of rows in files come from earlier preparations, or
    from the size of the files."""
    axolotl = experiment.axolotl
    datasets, tests = datasets_of(axolotl), datasets_of(axolotl, "test_datasets")
    counted = [_in_file(one) for one in datasets]
    sizes = [
        _declared(experiment.sizes.get(str(one.get("path"))), one, number(axolotl.get("sequence_len")))
        if size is None
        else size
        for size, one in zip(counted, datasets, strict=True)
    ]
    read = [one for one in sizes if one is not None]
    if not read or len(read) < len(sizes) or axolotl.get("streaming"):
        return None
    every = sum(one.rows for one in read)
    mean, longest = sum(one.rows * one.tokens_per_row for one in read) / every, None
    if None not in counted and (before := _before(axolotl, known.data)) is not None:
        mean, longest = before.tokens_per_row, before.longest_row
    held_out = held_out_of(number(axolotl.get("val_set_size")) or 0, every)
    evaluated = sum(rows_taken(one) or 0 for one in tests) if tests else held_out
    source = "rows as conf/dataset declares them" if None in counted else "rows counted in the file"
    return Rows(max(every - held_out, 1), evaluated, mean, longest, source)


def _in_file(dataset: Mapping[str, Any]) -> DatasetSize | None:
    rows = rows_taken(dataset)
    if not rows:
        return None
    path = Path(str(dataset.get("path"))).expanduser()
    return DatasetSize(rows, path.stat().st_size / (check_rows({"path": str(path)}) or 1) / CHARACTERS_PER_TOKEN)


def _declared(size: DatasetSize | None, dataset: Mapping[str, Any], length: float | None) -> DatasetSize | None:
    """What an entry takes of a dataset of this size. A long row of some types becomes several."""
    if size is None or dataset.get("data_files") or dataset.get("data_dir"):
        return None
    split = split_of(dataset)
    rows = size.rows if split.isidentifier() else rows_of_split(split, size.rows)
    if rows is None:
        return None
    part = min(number(dataset.get("weight")) or 1.0, 1.0) / (number(dataset.get("shards")) or 1.0)
    pieces = math.ceil(size.tokens_per_row / length) if length and dataset.get("type") in SPLIT_INTO_PIECES else 1
    return DatasetSize(max(round(rows * part), 1) * pieces, size.tokens_per_row / pieces)


def _before(axolotl: Mapping[str, Any], past: Sequence[PastDatasets]) -> PastDatasets | None:
    """An earlier preparation of the same files with the same sequence_len."""
    paths, length = data_paths(axolotl), axolotl.get("sequence_len")
    return next((one for one in past if (one.paths, one.sequence_len) == (paths, length)), None)
