"""Rules about what a config says of its datasets: splits, columns and shards that their rows do not have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modal_app.store.own_data import PRETRAINING, own_data_of
from runner.config.numbers import is_count, is_integer, number
from runner.preflight.columns import columns_read
from runner.preflight.data import datasets_of, split_of
from runner.preflight.findings import Finding, error, warning
from runner.preflight.jsonl import LocalRows, messages_column, properties_of
from runner.preflight.row_formats import option_for_columns
from runner.preflight.rules.run_facts import ListedDataset, RunFacts, rows_of_file
from runner.preflight.splits import overlap, rows_of_split

LOADING = "https://docs.axolotl.ai/docs/dataset_loading.html"
CONVERSATIONS = "https://docs.axolotl.ai/docs/dataset-formats/conversation.html"
FORMATS = "https://docs.axolotl.ai/docs/dataset-formats/"
PREFERENCES = "https://docs.axolotl.ai/docs/rlhf.html"
SLICES = "https://huggingface.co/docs/datasets/loading#slice-splits"
CONFIG = "https://docs.axolotl.ai/docs/config-reference.html"
STREAMS = "https://docs.axolotl.ai/docs/dataset-formats/pretraining.html"
FEW_ROWS = 1000
MANY_SHARDS = 50
LITTLE_WEIGHT = 0.05
SAME_ROWS = ("path", "name", "data_files")
IN_PARTS = ("shards", "weight", "preprocess_shards")
TAKE_NULL = frozenset(
    "command_a command_a_rag command_a_tool_use exaone4 gemma gemma3 gemma3n gemma4 gemma4_unified jamba llama3 "
    "llama3_2_vision llama4 llava mistral_v1 mistral_v2v3 mistral_v3_tekken mistral_v7_tekken pixtral qwen2_vl qwen3 "
    "qwen3_5".split()
)
"""Axolotl's templates that write a message whose content is null as an empty one."""


def split_that_a_file_does_not_have(run: RunFacts) -> Iterator[Finding]:
    """A file has one split, `train`: another split, or a slice without rows, ends the run before it trains."""
    for one in (*run.training, *run.testing):
        split = split_of(one.entry)
        if not Path(one.path).expanduser().is_file() or one.entry.get("data_files"):
            continue
        if split.isidentifier() and split not in ("train", "all"):
            here = "a file has one split, which is called train"
            yield error(f"{one.at}.split", split, here, f"Remove {one.at}.split.", LOADING)
        elif one.rows is not None and rows_of_split(split, one.rows.count) == 0:
            taken = f"it takes none of the {one.rows.count} rows of {one.path}"
            yield error(f"{one.at}.split", split, taken, f"Write {one.at}.split=train.", SLICES)


def column_that_no_row_has(run: RunFacts) -> Iterator[Finding]:
    """A dataset's `type` reads a column that no row has: Axolotl ends with a KeyError."""
    if own_data_of(run.axolotl):
        return
    for one in (*run.training, *run.testing):
        if one.rows is None or one.rows.tokenized:
            continue
        for key, name in columns_read(run.axolotl, one.entry):
            if name not in one.rows.columns:
                kind = one.entry.get("type")
                by_type = f"{kind} reads `{name}`" if key == "type" else "it is read from every row"
                yield error(
                    f"{one.at}.{key}",
                    kind if key == "type" else name,
                    f"{by_type}, and no row of {one.path} has it; they have {_listed(sorted(one.rows.columns))}",
                    _type_to_name(run, one.rows) if key == "type" else "Name a column of the rows.",
                    PREFERENCES if run.axolotl.get("rl") else FORMATS,
                )


def streamed_column_that_no_row_has(run: RunFacts) -> Iterator[Finding]:
    """The text of a pretraining stream is read from a column that no row has: Axolotl ends with a KeyError."""
    for index, entry in enumerate(datasets_of(run.axolotl, PRETRAINING)):
        files = entry.get("data_files")
        rows = rows_of_file({"path": files}) if entry.get("path") == "json" and isinstance(files, str) else None
        column = str(entry.get("text_column") or "text")
        if rows is not None and column not in rows.columns and entry.get("type") in (None, "pretrain"):
            yield error(
                f"{PRETRAINING}.{index}.text_column",
                column,
                f"no row of {files} has it; they have {_listed(sorted(rows.columns))}",
                "Name a column of the rows.",
                STREAMS,
            )


def message_without_role_or_content(run: RunFacts) -> Iterator[Finding]:
    """No message has the property that is read as its role or its content, so there is nothing to train on."""
    if run.axolotl.get("rl") or own_data_of(run.axolotl):
        return
    for one in (*run.training, *run.testing):
        rows = one.rows
        if one.entry.get("type") != "chat_template" or rows is None or not rows.messages or rows.tokenized:
            continue
        for meaning, name in properties_of(one.entry).items():
            # Without the named property, Axolotl leaves the message as it is, and the template reads its own.
            there = {name, meaning} & set(rows.properties)
            if meaning in ("role", "content") and not there and not _said_otherwise(run, one, rows):
                yield error(
                    f"{one.at}.message_property_mappings.{meaning}",
                    name,
                    f"no message under `{messages_column(one.entry)}` of {one.path} has it; they have "
                    f"{_listed(sorted(rows.properties))}",
                    _properties_to_name(one, meaning, rows),
                    CONVERSATIONS,
                )


def _properties_to_name(one: ListedDataset, meaning: str, rows: LocalRows) -> str:
    if not {"from", "value"} <= set(rows.properties):
        return f"Name the property that is the {meaning} of a message."
    name = messages_column(one.entry)
    other = "" if name == "conversations" else f" {one.at}.field_messages={name}"
    return f"For such messages write dataset=local_sharegpt{other}, or role: from and content: value in the mapping."


def _type_to_name(run: RunFacts, rows: LocalRows) -> str:
    option = "" if run.axolotl.get("rl") else option_for_columns(rows.columns)
    return f"For such rows write {option}." if option else "Name the type that the rows are of."


def message_whose_content_is_null(run: RunFacts) -> Iterator[Finding]:
    """Messages have null as their content: most templates join texts, and then fail."""
    if run.axolotl.get("rl") or own_data_of(run.axolotl):
        return
    for one in (*run.training, *run.testing):
        rows = one.rows
        if one.entry.get("type") != "chat_template" or rows is None or not rows.without_content or rows.tokenized:
            continue
        content = properties_of(one.entry)["content"]
        if not {content, "content"} & set(rows.properties) or may_take_null(run, one):
            continue
        roles = ", ".join(f"{role} ({number})" for role, number in rows.without_content.items())
        yield error(
            f"{one.at}.path",
            one.path,
            f"the `{content}` of {sum(rows.without_content.values())} of its {rows.messages} messages is null or "
            f"missing, first in {rows.first_without_content}, with the role {roles}; the chat template needs a text",
            f"Write the text into `{content}`, or remove these rows.",
            CONVERSATIONS,
        )


def dataset_named_twice(run: RunFacts) -> Iterator[Finding]:
    """The same rows are listed twice in the same format: every epoch trains on each of them twice."""
    if run.axolotl.get("dataset_exact_deduplication"):
        return
    for first, second in itertools.combinations(run.training, 2):
        parts = any(one.entry.get(key) for one in (first, second) for key in IN_PARTS)
        if not parts and _read_alike(first) == _read_alike(second) and _overlap(run, first, second):
            yield warning(
                f"{second.at}.path",
                second.path,
                f"some of its rows are also rows of {first.at}, so every epoch trains on them twice",
                "Remove one of the two, or name splits that do not overlap.",
                CONFIG,
            )


def rows_of_a_hub_dataset_in_both(run: RunFacts) -> Iterator[Finding]:
    """A test dataset has rows of a split that is trained on: its loss says how well the run remembers them."""
    for test in run.testing:
        for one in run.training:
            if test.rows is None and _same(test, one, SAME_ROWS) and _overlap(run, one, test, test_split="test"):
                yield warning(
                    f"{test.at}.split",
                    test.entry.get("split"),
                    f"some of its rows are also rows of {one.at} ({one.path}), which the run trains on, so its loss "
                    "falls as the run memorizes them",
                    "Name splits that do not overlap, such as train[:95%] and train[95%:].",
                    SLICES,
                )


def shards_that_leave_few_rows(run: RunFacts) -> Iterator[Finding]:
    """`shards: N` trains on one of N parts of a dataset; with a large N that is hardly anything."""
    for one in run.training:
        shards = one.entry.get("shards")
        if not is_count(shards) or shards < 2:
            continue
        rows = _rows_before_shards(run, one)
        if rows is None:
            few, left = len(run.training) == 1 and shards >= MANY_SHARDS, f"1/{shards} of its rows"
        else:
            few, left = shards >= 10 and rows // shards < FEW_ROWS, f"{rows // shards} of its {rows} rows"
        if few:
            yield warning(
                f"{one.at}.shards",
                shards,
                f"the run trains on only one of the shards, which is {left}, and never reads the others",
                f"Remove {one.at}.shards; for a part of the rows use {one.at}.split=train[:10%], and to tokenize in "
                "parts preprocess_shards.",
                CONFIG,
            )


def shard_that_does_not_exist(run: RunFacts) -> Iterator[Finding]:
    """Shards are numbered from 0, so a number equal to the number of shards is too large: Axolotl ends with an
    error."""
    places = [(f"{one.at}.shards_idx", one.entry.get("shards"), one.entry.get("shards_idx")) for one in run.training]
    places.append(("dataset_shard_idx", run.axolotl.get("dataset_shard_num"), run.axolotl.get("dataset_shard_idx")))
    for at, shards, index in places:
        if is_integer(shards) and is_integer(index) and not 0 <= index < shards:
            few = f"there are {shards} shards, numbered from 0 to {shards - 1}"
            yield error(at, index, few, "", CONFIG)


def shard_of_all_rows(run: RunFacts) -> Iterator[Finding]:
    """`dataset_shard_num: N` trains on one of N parts of all rows; with a large N that is hardly anything."""
    shards, index = run.axolotl.get("dataset_shard_num"), run.axolotl.get("dataset_shard_idx")
    if is_integer(shards) and is_integer(index) and 0 <= index < shards and shards >= MANY_SHARDS:
        yield warning(
            "dataset_shard_num",
            shards,
            f"the run trains on only one of the shards, which is 1/{shards} of the prepared rows",
            "Remove it.",
            CONFIG,
        )


def weight_that_leaves_few_rows(run: RunFacts) -> Iterator[Finding]:
    """A `weight` below 1 leaves out rows; it does not scale the loss."""
    if len(run.training) != 1:
        return
    weight, rows = number(run.training[0].entry.get("weight")), _rows_before_shards(run, run.training[0])
    if weight is None or not 0 < weight <= LITTLE_WEIGHT or (rows is not None and rows * weight >= FEW_ROWS):
        return
    left = f"{weight:.1%} of its rows" if rows is None else f"{max(1, int(rows * weight))} of its {rows} rows"
    yield warning(
        "datasets.0.weight",
        run.training[0].entry["weight"],
        f"the run trains on {left}: a weight leaves out rows, and does not scale the loss",
        "Remove it, or write datasets.0.split=train[:1%] for a part.",
        CONFIG,
    )


def _read_alike(one: ListedDataset) -> dict[str, Any]:
    """What decides which texts its rows become; a split, and how the file is read, do not."""
    return {key: value for key, value in one.entry.items() if key not in ("split", "ds_type", "trust_remote_code")}


def _same(one: ListedDataset, other: ListedDataset, keys: tuple[str, ...]) -> bool:
    return all(one.entry.get(key) == other.entry.get(key) for key in keys)


def _overlap(run: RunFacts, one: ListedDataset, other: ListedDataset, test_split: str = "train") -> bool:
    second = str(other.entry.get("split") or test_split)
    declared = run.experiment.sizes.get(one.path)
    rows = one.rows.count if one.rows else declared.rows if declared else None
    return overlap(split_of(one.entry), second, rows)


def _rows_before_shards(run: RunFacts, one: ListedDataset) -> int | None:
    declared = run.experiment.sizes.get(one.path)
    rows = one.rows.count if one.rows else declared.rows if declared else None
    return None if rows is None else rows_of_split(split_of(one.entry), rows)


def _said_otherwise(run: RunFacts, one: ListedDataset, rows: LocalRows) -> bool:
    """Whether a template of the user's own, or messages that are calls of tools, may do without the property."""
    return _own_template(run, one) or "tool_calls" in rows.properties


def may_take_null(run: RunFacts, one: ListedDataset) -> bool:
    """Whether the chat template may write a message whose content is null."""
    named = one.entry.get("chat_template") or run.axolotl.get("chat_template")
    return named in TAKE_NULL or _own_template(run, one)


def _own_template(run: RunFacts, one: ListedDataset) -> bool:
    places: tuple[Mapping[str, Any], ...] = (one.entry, run.axolotl)
    return any(place.get("chat_template_jinja") or place.get("chat_template") == "jinja" for place in places)


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


RULES = (
    split_that_a_file_does_not_have,
    column_that_no_row_has,
    streamed_column_that_no_row_has,
    message_without_role_or_content,
    message_whose_content_is_null,
    dataset_named_twice,
    rows_of_a_hub_dataset_in_both,
    shards_that_leave_few_rows,
    shard_that_does_not_exist,
    shard_of_all_rows,
    weight_that_leaves_few_rows,
)
