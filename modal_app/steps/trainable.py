"""Refuse rows that no run can train on, before a card is rented: none are left, or none of their tokens is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modal_app.process.failures import StepFailed
from modal_app.store.step import FailureReason

LISTS = {"train": "datasets", "test": "test_datasets"}
"""Axolotl's name of a split -> the key that lists its datasets."""


def require_written_rows(build: Path, hashes: Mapping[str, str], config: Mapping[str, Any]) -> None:
    """Axolotl writes no file for a dataset without rows, and cannot read it back then. `hashes`: of its splits.

    Raises StepFailed.
    """
    for split, name in hashes.items():
        state = build / name / "state.json"
        if state.is_file() and not json.loads(state.read_bytes()).get("_data_files"):
            raise StepFailed(FailureReason.DATA, none_left(LISTS.get(split, split), None, config))


def require_trainable(counts: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """`counts`: of the manifest. Raises StepFailed."""
    if not counts["rows"]:
        raise StepFailed(FailureReason.DATA, none_left("datasets", counts["given_rows"], config))
    if counts["trained_tokens"] == 0:
        raise StepFailed(FailureReason.DATA, none_trained(counts, config))


def missing_column(error: KeyError, columns: Sequence[Sequence[str]]) -> StepFailed:
    """What Axolotl's KeyError means for the rows. `columns`: those of each dataset."""
    has = "; ".join(f"datasets.{index} has {', '.join(names)}" for index, names in enumerate(columns))
    return StepFailed(
        FailureReason.DATA,
        f"Axolotl reads {error} from its rows, and there is none: {has}. Name the type that the rows are of, or what "
        "they call it: field_messages, message_property_mappings and other field_ keys of the dataset.",
    )


def none_left(key: str, given: int | None, config: Mapping[str, Any]) -> str:
    length = config.get("eval_sequence_len") if key == "test_datasets" else None
    length = length or config.get("sequence_len")
    what = f"none of the {given} rows" if given else "no row"
    return (
        f"{what} of {key} is left: all are longer than sequence_len={length} tokens, or shorter than 2. "
        "Write a larger sequence_len, or excess_length_strategy=truncate."
    )


def none_trained(counts: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    cut = config.get("excess_length_strategy") == "truncate" and counts["longest_row"] == config.get("sequence_len")
    way_out = (
        "excess_length_strategy=truncate cuts the answers off: write a larger sequence_len."
        if cut
        else "Check roles_to_train and roles of the dataset, its columns with answers, whether the answers are "
        "empty, and train_on_inputs."
    )
    return (
        f"none of the {counts['tokens']} tokens of its {counts['rows']} rows is trained, so the loss of every step "
        f"would be NaN. {way_out}"
    )
