"""Rules about what a config says of its datasets: splits, columns and shards that their rows do not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modal_app.store.own_data import own_data_of
from runner.preflight.columns import columns_read
from runner.preflight.data import split_of
from runner.preflight.findings import Finding, error, warning
from runner.preflight.jsonl import LocalRows, messages_column, properties_of
from runner.preflight.rules.run_facts import ListedDataset, RunFacts
from runner.preflight.splits import rows_of_split

LOADING = "https://docs.axolotl.ai/docs/dataset_loading.html"
CONVERSATIONS = "https://docs.axolotl.ai/docs/dataset-formats/conversation.html"
FORMATS = "https://docs.axolotl.ai/docs/dataset-formats/"
PREFERENCES = "https://docs.axolotl.ai/docs/rlhf.html"
SLICES = "https://huggingface.co/docs/datasets/loading#slice-splits"
CONFIG = "https://docs.axolotl.ai/docs/config-reference.html"
FEW_ROWS = 1000
MANY_SHARDS = 50


def split_that_a_file_does_not_have(run: RunFacts) -> Iterator[Finding]:
    """A file has one split, `train`: any other one, and a slice without rows, ends the run before it trains."""
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
        lacking = [name for name in columns_read(run.axolotl, one.entry) if name not in one.rows.columns]
        if lacking:
            kind = one.entry.get("type")
            yield error(
                f"{one.at}.type",
                "(of your own)" if isinstance(kind, Mapping) else kind,
                f"it reads {_listed(lacking)}, and the rows of {one.path} have {_listed(sorted(one.rows.columns))}",
                "Name the type that the rows are of, or their columns by its field_ keys.",
                PREFERENCES if run.axolotl.get("rl") else FORMATS,
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
                    f"Name the property that is the {meaning} of a message.",
                    CONVERSATIONS,
                )


def dataset_named_twice(run: RunFacts) -> Iterator[Finding]:
    """The same dataset is listed twice: every epoch trains on each of its rows twice."""
    if run.axolotl.get("dataset_exact_deduplication"):
        return
    entries = Counter(repr(sorted(one.entry.items(), key=lambda item: item[0])) for one in run.training)
    seen: set[str] = set()
    for one in run.training:
        text = repr(sorted(one.entry.items(), key=lambda item: item[0]))
        if entries[text] > 1 and text not in seen:
            seen.add(text)
            yield warning(
                f"{one.at}.path",
                one.path,
                f"it is listed {entries[text]} times with equal settings, so every epoch pays for its rows "
                f"{entries[text]} times",
                "Remove one, or set num_epochs.",
                CONFIG,
            )


def shards_that_leave_few_rows(run: RunFacts) -> Iterator[Finding]:
    """`shards: N` trains on one of N parts of a dataset; with a large N that is hardly anything."""
    for one in run.training:
        shards = one.entry.get("shards")
        if not isinstance(shards, int) or isinstance(shards, bool) or shards < 2:
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
                f"the run trains on one of the shards only, which is {left}, and never reads the others",
                f"Remove {one.at}.shards; for a part of the rows use {one.at}.split=train[:10%], and to tokenize in "
                "parts preprocess_shards.",
                CONFIG,
            )


def _rows_before_shards(run: RunFacts, one: ListedDataset) -> int | None:
    declared = run.experiment.sizes.get(one.path)
    rows = one.rows.count if one.rows else declared.rows if declared else None
    return None if rows is None else rows_of_split(split_of(one.entry), rows)


def _said_otherwise(run: RunFacts, one: ListedDataset, rows: LocalRows) -> bool:
    """Whether a template of the user's own, or messages that are calls of tools, may do without the property."""
    places: tuple[Mapping[str, Any], ...] = (one.entry, run.axolotl)
    own = any(place.get("chat_template_jinja") or place.get("chat_template") == "jinja" for place in places)
    return own or "tool_calls" in rows.properties


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


RULES = (
    split_that_a_file_does_not_have,
    column_that_no_row_has,
    message_without_role_or_content,
    dataset_named_twice,
    shards_that_leave_few_rows,
)
