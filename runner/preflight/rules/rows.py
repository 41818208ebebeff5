"""Rules about what the rows of local files cost: copies of rows, and padding that is longer than the rows."""

from __future__ import annotations

from collections.abc import Iterator

from modal_app.store.own_data import own_data_of
from runner.preflight.data import SPLIT_INTO_PIECES
from runner.preflight.findings import Finding, warning
from runner.preflight.rules.run_facts import ListedDataset, RunFacts
from runner.types import DatasetSize

DEDUPLICATION = "https://arxiv.org/abs/2107.06499"
PACKING = "https://docs.axolotl.ai/docs/multipack.html"
FEWEST_ROWS = 100
BYTES_PER_TOKEN = 2.0
"""Fewer than any usual text has, JSON's own characters included, so that rows are never taken for shorter."""
BYTES_PER_CHARACTER = 1.5
TOKENS_PER_MESSAGE = 8
FACTOR = 4.0
SAME_SHAPE = ("torch_compile", "context_parallel_size", "sequence_parallel_degree", "flex_attention")
"""What is faster, or works, only with batches of one shape."""


def copies_of_rows(run: RunFacts) -> Iterator[Finding]:
    """More than half of a file's rows are copies: each epoch trains on them, and they repeat what is known."""
    if run.axolotl.get("dataset_exact_deduplication"):
        return
    for one in run.training:
        if one.rows is None or one.rows.count < FEWEST_ROWS:
            continue
        copies = one.rows.count - len(one.rows.digests)
        if copies * 2 > one.rows.count:
            yield warning(
                f"{one.at}.path",
                one.path,
                f"{copies} of its {one.rows.count} rows are copies of other rows, and every epoch trains on them",
                "Write dataset_exact_deduplication=true, and num_epochs for how often rows are repeated.",
                DEDUPLICATION,
            )


def padding_of_short_rows(run: RunFacts) -> Iterator[Finding]:
    """With `pad_to_sequence_len` and without packing each row is computed as if it had `sequence_len` tokens."""
    length = run.number("sequence_len")
    if not run.axolotl.get("pad_to_sequence_len") or run.axolotl.get("sample_packing") or not length:
        return
    if own_data_of(run.axolotl) or run.axolotl.get("rl") or any(run.axolotl.get(key) for key in SAME_SHAPE):
        return
    tokens = _tokens_of_a_row(run)
    if tokens is not None and length >= FACTOR * tokens:
        yield warning(
            "pad_to_sequence_len",
            run.axolotl["pad_to_sequence_len"],
            f"rows have about {tokens:.0f} tokens and are padded to {length:.0f}, so about "
            f"{1 - tokens / length:.0%} of what is computed is padding",
            "Write sample_packing=true, or pad_to_sequence_len=false.",
            PACKING,
        )


def _tokens_of_a_row(run: RunFacts) -> float | None:
    """The mean: counted if the dataset is prepared, otherwise the most that its bytes can be."""
    known = run.prepared
    if known.rows and known.tokens:
        return known.tokens / known.rows
    if any(one.entry.get("type") in SPLIT_INTO_PIECES for one in run.training):
        return None  # rows are as long as sequence_len, since they are cut to that length
    known_sizes = [_size(one, run.experiment.sizes.get(one.path)) for one in run.training]
    sizes = [one for one in known_sizes if one is not None]
    rows = sum(one.rows for one in sizes)
    if not rows or len(sizes) < len(known_sizes):
        return None
    return sum(one.rows * one.tokens_per_row for one in sizes) / rows


def _size(one: ListedDataset, declared: DatasetSize | None) -> DatasetSize | None:
    """The size of a file that is not tokenized. Its rows are estimated as longer than they are."""
    rows = one.rows
    if rows is None or rows.tokenized or rows.parts:
        return declared if rows is None else None
    texts = rows.characters * BYTES_PER_CHARACTER if rows.messages else rows.bytes
    tokens = texts / BYTES_PER_TOKEN + (rows.messages or rows.count) * TOKENS_PER_MESSAGE
    return DatasetSize(rows.count, tokens / rows.count)


RULES = (copies_of_rows, padding_of_short_rows)
