"""The loss of each held-out row in one evaluation, as a file, by which runs with the same rows are compared."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modal_app.store.step import write_atomically

VERSION = 1
COLUMNS = {
    "id": np.uint64,
    "document": np.uint64,
    "dataset": np.uint16,
    "length": np.int32,
    "batch": np.int32,
    "turns": np.int32,
    "tokens": np.int32,
    "nll": np.float64,
}
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What numpy and zipfile raise for a file that is not as it was written."""


@dataclass(frozen=True, slots=True)
class About:
    eval_fingerprint: str | None
    step: int
    """The optimizer step of the weights; of those that training begins with it is 0, or the step of the checkpoint that
    the run starts from (from=)."""
    eval_loss: float
    """What Axolotl's Trainer says of the same evaluation: a mean over batches, so it is not the mean over tokens."""
    datasets: tuple[str, ...]
    """The datasets of the mix, as the config names them; empty if it is unknown which one a row is of."""
    documents_known: bool
    """Whether `document` is known; else each row is taken as a document of its own."""
    repeated: tuple[tuple[int, int], ...] = ()
    """(batch, row) for each row that was rated a second time, so that all ranks have equally many. It counts once."""


@dataclass(frozen=True, slots=True)
class RowLosses:
    """Rows are in no particular order: match them by `id`. One element a row, but for `tokens` and `nll`."""

    about: About
    id: NDArray[np.uint64]
    """Of `row_ids`: equal for equal tokens and labels, with the number of their occurrence."""
    document: NDArray[np.uint64]
    """Equal for the rows that were cut from one document or conversation."""
    dataset: NDArray[np.uint16]
    """An index into `about.datasets`; 0 where that is empty."""
    length: NDArray[np.int32]
    """All tokens of the row, trained or not, without padding."""
    batch: NDArray[np.int32]
    """The batch that it was rated in, counted over all ranks: the Trainer's loss is a mean over batches. -1: Axolotl
    left it out of its evaluation (packed batches that do not divide among the ranks), and it was rated afterwards."""
    turns: NDArray[np.int32]
    """How many stretches of trained tokens it has: the answers of a conversation."""
    tokens: NDArray[np.int32]
    """The trained tokens of each turn, the turns of all rows in a row."""
    nll: NDArray[np.float64]
    """The summed negative log-likelihood of each turn, in nats."""

    @property
    def row_tokens(self) -> NDArray[np.float64]:
        return _by_row(self.tokens, self.turns)

    @property
    def row_nll(self) -> NDArray[np.float64]:
        return _by_row(self.nll, self.turns)

    def write(self, path: Path) -> None:
        """Complete or not at all."""
        columns = {name: getattr(self, name).astype(dtype, copy=False) for name, dtype in COLUMNS.items()}
        file = io.BytesIO()
        np.savez_compressed(file, about=np.array(json.dumps(asdict(self.about) | {"version": VERSION})), **columns)
        write_atomically(path, file.getvalue())

    @classmethod
    def read(cls, path: Path) -> RowLosses | None:
        """None where there is no such file, or one that is damaged or of another version."""
        try:
            with np.load(path, allow_pickle=False) as file:
                about = json.loads(str(file["about"]))
                if about.pop("version") != VERSION:
                    return None
                about["datasets"] = tuple(about["datasets"])
                about["repeated"] = tuple((batch, row) for batch, row in about["repeated"])
                return cls(About(**about), **{name: file[name].astype(dtype) for name, dtype in COLUMNS.items()})
        except DAMAGED:
            return None


def row_ids(digests: Sequence[str]) -> NDArray[np.uint64]:
    """One id for each row. `digests`: hashes of their tokens and labels (`steps.fingerprint.row_digests`). Equal rows
    differ by the number of their occurrence."""
    seen: Counter[str] = Counter()
    ids = np.empty(len(digests), np.uint64)
    for at, digest in enumerate(digests):
        ids[at] = int.from_bytes(hashlib.sha256(f"{digest} {seen[digest]}".encode()).digest()[:8], "big")
        seen[digest] += 1
    return ids


def _by_row(values: NDArray[Any], turns: NDArray[np.int32]) -> NDArray[np.float64]:
    row = np.repeat(np.arange(len(turns)), turns)
    return np.bincount(row, weights=values, minlength=len(turns))
