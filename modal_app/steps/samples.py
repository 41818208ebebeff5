"""What a prepared dataset looks like to the model: some rows decoded, each part marked as trained on or not.

Created once, when the dataset is prepared, so that looking at data needs neither the tokenizer nor Axolotl.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Any, Protocol

SAMPLES_PER_SPLIT = 5
IGNORED_LABEL = -100


class Decoder(Protocol):
    def decode(self, tokens: Sequence[int]) -> str: ...


def samples(splits: Iterable[tuple[str, Any]], tokenizer: Decoder) -> list[dict[str, Any]]:
    """The first rows of each split as `{split, row, segments: [{text, trained}]}`.

    A split is a dataset with `input_ids` and `labels`; others (preference pairs) give no samples.
    """
    return [
        {"split": name, "row": number, "segments": list(segments_of(rows[number], tokenizer))}
        for name, rows in splits
        if rows is not None and {"input_ids", "labels"} <= set(rows.column_names)
        for number in range(min(SAMPLES_PER_SPLIT, len(rows)))
    ]


def segments_of(row: Mapping[str, Any], tokenizer: Decoder, most: int | None = None) -> Iterator[dict[str, Any]]:
    """Stretches of tokens that are all trained on, or all not. `most`: decode no more tokens of each."""
    pairs = zip(row["input_ids"], row["labels"], strict=True)
    for trained, tokens in groupby(pairs, key=lambda pair: pair[1] != IGNORED_LABEL):
        yield {"text": tokenizer.decode([token for token, _ in islice(tokens, most)]), "trained": trained}
