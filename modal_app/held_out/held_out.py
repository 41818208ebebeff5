"""The held-out rows of a prepared dataset: each one's dataset, document and text.

Written when the dataset is prepared, so that reading them needs neither the tokenizer nor Axolotl.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modal_app.held_out.row_losses import RowLosses

VERSION = 1
SHOWN_CHARACTERS = 2_000
"""Of each segment; what is behind them is cut."""
SHOWN_ROWS = 10_000
"""How many rows have a text."""


@dataclass(frozen=True, slots=True)
class Segment:
    text: str
    trained: bool
    """Whether the loss sees it."""


@dataclass(frozen=True, slots=True)
class HeldOutRow:
    id: int
    """Of `row_losses.row_ids`."""
    document: int
    """Equal for the rows that were cut from one document or conversation; else the row's own id."""
    dataset: int | None
    """An index into `HeldOut.datasets`; null if the row's dataset is unknown."""
    text: tuple[Segment, ...] = ()
    """Decoded; empty beyond SHOWN_ROWS."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    datasets: tuple[str, ...]
    """The datasets of the mix that held-out rows may be of, as the step's config names them: local files by content."""
    documents_known: bool
    """Otherwise, some rows may be of one document, and each counts as a document of its own."""
    rows: tuple[HeldOutRow, ...]
    """In the order of the evaluation dataset."""

    def write(self, path: Path) -> None:
        """A line for all rows together, then one for each row. Equal rows give equal bytes."""
        about = {"version": VERSION, "datasets": self.datasets, "documents_known": self.documents_known}
        lines = [about, *(_written(row) for row in self.rows)]
        text = "".join(json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n" for line in lines)
        # Tokens may decode to half a character, which is not UTF-8.
        path.write_bytes(gzip.compress(text.encode(errors="replace"), compresslevel=6, mtime=0))

    @classmethod
    def read(cls, path: Path, texts_of: Collection[int] | None = None) -> HeldOut | None:
        """None where there is no such file, or one that is damaged or of another version. `texts_of`: read the texts of
        the rows with these ids only."""
        try:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                return cls._of(map(json.loads, lines), texts_of)
        except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError, AttributeError, StopIteration):
            return None

    @classmethod
    def _of(cls, lines: Iterator[Any], texts_of: Collection[int] | None) -> HeldOut | None:
        about = next(lines)
        if about["version"] != VERSION:
            return None
        rows = tuple(_read(line, texts_of) for line in lines)
        return cls(tuple(map(str, about["datasets"])), bool(about["documents_known"]), rows)

    def describe(self, losses: RowLosses) -> RowLosses:
        """The losses with the dataset and the document of each row; unchanged if these are other rows."""
        import numpy as np  # imported late: showing texts does not need it

        rows = {row.id: row for row in self.rows}
        found = [rows.get(one) for one in losses.id.tolist()]
        described = [row for row in found if row is not None]
        if len(described) < len(found):
            return losses
        named = all(row.dataset is not None for row in described)
        return replace(
            losses,
            about=replace(losses.about, datasets=self.datasets if named else (), documents_known=self.documents_known),
            document=np.array([row.document for row in described], np.uint64),
            dataset=np.array([row.dataset if named else 0 for row in described], np.uint16),
        )


def _written(row: HeldOutRow) -> dict[str, Any]:
    return asdict(row) | {"text": [{"text": one.text[:SHOWN_CHARACTERS], "trained": one.trained} for one in row.text]}


def _read(line: Any, texts_of: Collection[int] | None) -> HeldOutRow:
    shown: Iterable[Any] = line["text"] if texts_of is None or line["id"] in texts_of else ()
    text = tuple(Segment(str(one["text"]), bool(one["trained"])) for one in shown)
    dataset = line["dataset"]
    return HeldOutRow(int(line["id"]), int(line["document"]), None if dataset is None else int(dataset), text)
