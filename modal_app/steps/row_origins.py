"""The dataset and the document that each held-out row comes from: recorded while Axolotl tokenizes, looked up when the
held-out rows are known.

Axolotl shuffles, drops and splits the rows of all datasets together, so they are found again by their digests.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from modal_app.held_out.held_out import SHOWN_CHARACTERS, SHOWN_ROWS, HeldOut, HeldOutRow, Segment
from modal_app.held_out.row_losses import row_ids
from modal_app.steps.fingerprint import row_digest, row_digests
from modal_app.steps.samples import Decoder, segments_of

TOLD_APART_BY = ("name", "split", "data_files", "type")
"""Keys in which two datasets with one path may differ."""


@dataclass(frozen=True, slots=True)
class TokenizedDataset:
    """One dataset of the mix, before it is merged with the others."""

    config: Mapping[str, Any]
    rows: Any
    documents_known: bool


@dataclass(slots=True)
class RowOrigins:
    notes: Path
    """A file for the texts that are cut into several rows, one a line: its document and the digests of its rows.
    Several processes append to it."""
    split: str
    """Axolotl's name of the split that held-out rows are taken from: train or test."""
    limit: int | None
    """The tokens that rows are cut to after they are tokenized; None where longer rows are dropped."""
    tokenized: list[TokenizedDataset] = field(default_factory=list)

    @classmethod
    def noted_in(cls, notes: Path, config: Mapping[str, Any]) -> RowOrigins:
        test = bool(config.get("test_datasets"))
        length = (config.get("eval_sequence_len") if test else None) or config.get("sequence_len")
        cut = str(config.get("excess_length_strategy") or "drop").lower() == "truncate"
        return cls(notes, "test" if test else "train", length if cut else None)

    def note_dataset(self, split: str, config: Mapping[str, Any], rows: Any, documents_known: bool) -> None:
        if split == self.split and isinstance(rows, datasets.Dataset):
            self.tokenized.append(TokenizedDataset(dict(config), rows, documents_known))

    def note_text(self, rows: Mapping[str, Sequence[Sequence[int]]]) -> None:
        """Record the rows of one text, in the process that has tokenized it."""
        tokens, labels = rows.get("input_ids", ()), rows.get("labels", ())
        if len(tokens) < 2 or len(tokens) != len(labels):
            return
        digests = [row_digest(*both, limit=self.limit) for both in zip(tokens, labels, strict=True)]
        document = row_digest(np.concatenate(tokens), ())
        line = f"{' '.join([document[:16], *digests])}\n".encode()
        self.notes.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def held_out(self, rows: datasets.Dataset, digests: Sequence[str], tokenizer: Decoder) -> HeldOut:
        """`rows`: with tokens and labels; `digests`: those of the rows."""
        names = dataset_names([one.config for one in self.tokenized])
        mix = tuple(dict.fromkeys(names))
        of_dataset = self._datasets_of(set(digests), [mix.index(name) for name in names])
        of_document = self._documents_of(set(digests))
        found = []
        for at, (row_id, digest) in enumerate(zip(row_ids(digests).tolist(), digests, strict=True)):
            # Equal rows from several places are interchangeable: any assignment of them is right.
            documents, places = of_document[digest], of_dataset[digest]
            found.append(
                HeldOutRow(
                    id=row_id,
                    document=documents.pop() if documents else row_id,
                    dataset=(places.pop() if len(places) > 1 else places[0]) if places else None,
                    text=_text(rows[at], tokenizer) if at < SHOWN_ROWS else (),
                )
            )
        from_known = {row.dataset for row in found}
        known = {at for one, at in zip(self.tokenized, map(mix.index, names), strict=True) if not one.documents_known}
        return HeldOut(mix, None not in from_known and not (from_known & known), tuple(found))

    def _datasets_of(self, digests: set[str], indices: Sequence[int]) -> defaultdict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        for one, index in zip(self.tokenized, indices, strict=True):
            for digest in row_digests(one.rows, limit=self.limit):
                if digest in digests:
                    found[digest].append(index)
        return found

    def _documents_of(self, digests: set[str]) -> defaultdict[str, list[int]]:
        found: defaultdict[str, list[int]] = defaultdict(list)
        lines = self.notes.read_text().splitlines() if self.notes.exists() else []
        for document, *rows in sorted(line.split(" ") for line in lines):
            for digest in rows:
                if digest in digests:
                    found[digest].append(int(document, 16))
        return found


def dataset_names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The path of each dataset; if several have the same path, also the keys in which they differ."""
    names = [str(config.get("path")) for config in configs]
    differing = {
        path: [
            key
            for key in TOLD_APART_BY
            if len({str(config.get(key)) for config in configs if str(config.get("path")) == path}) > 1
        ]
        for path in names
    }
    return [
        " ".join([path, *(str(config.get(key)) for key in differing[path] if config.get(key))])
        for path, config in zip(names, configs, strict=True)
    ]


def _text(row: Mapping[str, Any], tokenizer: Decoder) -> tuple[Segment, ...]:
    """A token nearly always has at least one character, so no more tokens than that are decoded."""
    segments = segments_of(row, tokenizer, SHOWN_CHARACTERS)
    return tuple(Segment(one["text"][:SHOWN_CHARACTERS], one["trained"]) for one in segments)
