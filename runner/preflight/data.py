"""Problems with a run's data: missing files, lines that cannot be rows, too few rows for a batch or an evaluation."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runner.config.known_names import PARTIAL
from runner.config.numbers import is_count, is_integer, number
from runner.errors import SweepError
from runner.keys.inputs import UnusableInput, look_for_inputs
from runner.preflight.findings import Finding, Severity, error
from runner.preflight.jsonl import check_rows
from runner.preflight.splits import rows_of_split
from runner.types import DataChoice, DatasetSize

SPLIT_INTO_PIECES = ("completion", "pretrain")
"""Dataset types that split a long row into several samples, so that rows do not determine steps."""

AXOLOTLS_FILES: Mapping[str, str] = {
    "zero1.json": "zero1",
    "zero1_torch_compile.json": "zero1",
    "zero2.json": "zero2",
    "zero2_torch_compile.json": "zero2",
    "zero3.json": "zero3",
    "zero3_bf16.json": "zero3",
    "zero3_bf16_cpuoffload_all.json": "zero3_offload",
    "zero3_bf16_cpuoffload_params.json": "zero3_offload",
}
"""The files in Axolotl's deepspeed_configs, which its examples name -> the option of conf/deepspeed of that stage."""


def datasets_of(axolotl: Mapping[str, Any], key: str = "datasets") -> list[Mapping[str, Any]]:
    listed = axolotl.get(key)
    return [dataset for dataset in listed if isinstance(dataset, Mapping)] if isinstance(listed, list) else []


def split_of(dataset: Mapping[str, Any]) -> str:
    return str(dataset.get("split") or "train")


def takes_a_part(dataset: Mapping[str, Any]) -> bool:
    """Whether an entry takes only a part of its dataset, other than a split."""
    return any(dataset.get(key) for key in PARTIAL)


def held_out_of(size: float, rows: int) -> int:
    """How many of these rows val_set_size=`size` holds out, as train_test_split rounds it."""
    return math.ceil(rows * size) if size < 1 else int(size)


def data_findings(axolotl: Mapping[str, Any], data: DataChoice) -> Iterator[Finding]:
    yield from _choice(axolotl, data)
    yield from limit_findings(axolotl, data.limit)
    _, unusable = look_for_inputs(axolotl)
    yield from (Finding(Severity.ERROR, one.at, one.text, one.why, _way_out(one)) for one in unusable)
    yield from _deepspeed_file(axolotl)
    for key in ("datasets", "test_datasets"):
        for index, dataset in enumerate(datasets_of(axolotl, key)):
            try:
                # With rl, types of the same name read other rows: a prompt may be a text, for example.
                check_rows(dataset if not axolotl.get("rl") else {**dataset, "type": None})
            except SweepError as problem:
                yield Finding(Severity.ERROR, f"{key}.{index}.path", str(dataset.get("path")), str(problem))


def _way_out(unusable: UnusableInput) -> str:
    option = AXOLOTLS_FILES.get(Path(unusable.text).name) if unusable.at == "deepspeed" else None
    if option is None:
        return ""
    return (
        f"Choose deepspeed={option}, of the same stage, or get the files of Axolotl's examples: "
        "axolotl fetch deepspeed_configs (in the trainer's environment)."
    )


def _choice(axolotl: Mapping[str, Any], data: DataChoice) -> Iterator[Finding]:
    paths = [dataset.get("path") for dataset in datasets_of(axolotl)]
    if None in paths:
        at = f"datasets.{paths.index(None)}.path"
        yield error(at, None, "expected a path: dataset=local needs data.path=FILE, a file of your own")
    elif data.path is not None and data.path not in paths:
        yield error("data.path", data.path, "the chosen dataset does not use it", "Add dataset=local.")
    if data.seed is not None and not is_integer(data.seed):
        yield error("data.seed", data.seed, "expected a whole number, or null for the run's own seed")


def limit_findings(axolotl: Mapping[str, Any], limit: Any) -> Iterator[Finding]:
    """Reasons why a limit cannot cut the datasets. None cuts nothing; a dataset with this cut already is fine."""
    if limit is None:
        return
    if not is_count(limit):
        yield error("data.limit", limit, "expected a number of rows, at least 1")
    elif not datasets_of(axolotl):
        yield error("data.limit", limit, "it limits `datasets`, but this run has none")
    else:
        for index, dataset in enumerate(datasets_of(axolotl)):
            if any(mark in split_of(dataset).removesuffix(f"[:{limit}]") for mark in "[+"):
                yield error(
                    "data.limit",
                    limit,
                    f"it cannot limit datasets.{index}, whose split is already {split_of(dataset)!r}",
                    "Change one of the two.",
                )


def _deepspeed_file(axolotl: Mapping[str, Any]) -> Iterator[Finding]:
    path = axolotl.get("deepspeed")
    if isinstance(path, str) and Path(path).expanduser().is_file():
        try:
            json.loads(Path(path).expanduser().read_bytes())
        except ValueError as problem:
            yield error("deepspeed", path, f"expected a JSON file ({problem})")


@dataclass(frozen=True, slots=True)
class Steps:
    """How long a run is, computed from its rows; for a packed run, an upper bound."""

    rows: int
    """For training."""
    batch: int
    """Rows per optimizer step, over all ranks."""
    total: int
    given: bool
    """`total` is max_steps."""
    declared: bool
    """Not all rows are counted: the number of some is from the `sizes` node, which is approximate."""


def steps_of(axolotl: Mapping[str, Any], ranks: int, sizes: Mapping[str, DatasetSize] | None = None) -> Steps | None:
    """None when some rows are unknown, or their number of samples is.

    Rows are counted in files on this machine; `sizes`, by path, are for datasets that are not on this machine.
    """
    datasets, length = datasets_of(axolotl), number(axolotl.get("sequence_len"))
    counted = [rows_taken(dataset) for dataset in datasets]
    declared = [
        _declared_rows(dataset, (sizes or {}).get(str(dataset.get("path"))), length) if rows is None else None
        for dataset, rows in zip(datasets, counted, strict=True)
    ]
    counted = [stated if rows is None else rows for rows, stated in zip(counted, declared, strict=True)]
    epochs = number(axolotl.get("num_epochs", 1))
    held_out = number(axolotl.get("val_set_size") or 0)
    if not counted or None in counted or not epochs or held_out is None or axolotl.get("streaming"):
        return None
    rows = sum(one for one in counted if one is not None)
    rows -= held_out_of(held_out, rows)
    batch = _batch(axolotl) * ranks
    if batch < 1 or rows < 1:
        return None
    given = number(axolotl.get("max_steps")) or 0
    # Axolotl rounds once for all epochs; for a packed run, each epoch ends with a batch of its own.
    whole = math.ceil(rows / batch) * epochs if axolotl.get("sample_packing") else rows * epochs / batch
    total = int(given) if given > 0 else math.ceil(whole)
    return Steps(rows, batch, total, given > 0, any(one is not None for one in declared))


def rows_taken(dataset: Mapping[str, Any]) -> int | None:
    """How many rows of a local JSONL file a dataset uses; None if some of that is unknown, or a row can become several
    samples."""
    kind, split = dataset.get("type"), split_of(dataset)
    partial = takes_a_part(dataset) or dataset.get("name")
    if not isinstance(kind, str | Mapping) or "." in kind or kind in SPLIT_INTO_PIECES or partial:
        return None
    try:
        rows = check_rows(dataset)
    except SweepError:
        return None
    return None if rows is None else rows_of_split(split, rows)


def _declared_rows(dataset: Mapping[str, Any], size: DatasetSize | None, length: float | None) -> int | None:
    """The declared number; if long rows are split into pieces, about the number of pieces."""
    if size is None or takes_a_part(dataset):
        return None
    rows = rows_of_split(split_of(dataset), size.rows)
    if rows is None or dataset.get("type") not in SPLIT_INTO_PIECES or not length:
        return rows
    return rows * math.ceil(size.tokens_per_row / length)


def _batch(axolotl: Mapping[str, Any]) -> int:
    """Rows per step and rank."""
    micro = number(axolotl.get("micro_batch_size")) or 1
    batch_size = number(axolotl.get("batch_size"))
    return int(batch_size or micro * (number(axolotl.get("gradient_accumulation_steps")) or 1))
