"""Settings with the losses of the same held-out rows, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modal_app.held_out.row_losses import RowLosses

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SettingLosses:
    """Settings of one eval fingerprint. Runs that differ in their seed alone are one setting."""

    settings: tuple[str, ...]
    """Their names, in the order of the columns of `nll`."""
    runs: tuple[tuple[str, ...], ...]
    """The runs of each setting, one a seed, by key."""
    nll: tuple[Floats, ...]
    """For each setting, the summed negative log-likelihood by run and row."""
    tokens: Floats
    """The trained tokens of each row; one at least."""
    document: NDArray[np.intp]
    """The document of each row, counted from 0. There are two at least."""
    documents_known: bool

    @property
    def documents(self) -> int:
        return int(np.max(self.document)) + 1

    @property
    def seeds(self) -> Floats:
        """How many runs each setting has."""
        return np.array([len(runs) for runs in self.runs], np.float64)

    @property
    def run_means(self) -> tuple[Floats, ...]:
        """For each setting, the mean loss over all tokens of each of its runs."""
        return tuple(nll.sum(axis=1) / self.tokens.sum() for nll in self.nll)


FEWEST_DOCUMENTS = 2
"""A single one says nothing about others."""


def judged(settings: Mapping[str, Sequence[str]], losses: Mapping[str, RowLosses]) -> SettingLosses | None:
    """Bring the rows of runs into one order. `settings`: name -> its runs, by key; `losses`: those of each run.

    A run without losses, with other rows than most, or with a loss that is not finite is left out, and so is a setting
    without runs. Rows without trained tokens have no loss, and are left out. None if that leaves nothing, or fewer than
    FEWEST_DOCUMENTS documents.
    """
    runs = _with_equal_rows({key: losses[key] for keys in settings.values() for key in keys if key in losses})
    found = {name: [key for key in keys if key in runs] for name, keys in settings.items()}
    found = {name: keys for name, keys in found.items() if keys}
    if not found:
        return None
    first = max(runs.values(), key=lambda one: one.documents_known)  # what one run knows of the rows counts for all
    trained = first.tokens > 0
    documents, document = np.unique(first.document[trained], return_inverse=True)
    if len(documents) < FEWEST_DOCUMENTS:
        return None
    return SettingLosses(
        settings=tuple(found),
        runs=tuple(map(tuple, found.values())),
        nll=tuple(np.stack([runs[key].nll[trained] for key in keys]) for keys in found.values()),
        tokens=first.tokens[trained],
        document=document,
        documents_known=first.documents_known,
    )


@dataclass(frozen=True, slots=True)
class _OrderedRows:
    """A run's rows by their id."""

    nll: Floats
    tokens: Floats
    document: NDArray[np.uint64]
    documents_known: bool


def _with_equal_rows(losses: Mapping[str, RowLosses]) -> dict[str, _OrderedRows]:
    """The runs with finite losses that most have the rows of, in the order of the first."""
    orders: dict[bytes, NDArray[np.intp]] = {}
    alike: dict[bytes, dict[str, _OrderedRows]] = {}
    for key, one in losses.items():
        if not np.isfinite(one.nll).all():
            continue
        written = one.id.tobytes()  # most runs write their rows in one order
        if written not in orders:
            orders[written] = np.argsort(one.id)
        order = orders[written]
        alike.setdefault(one.id[order].tobytes(), {})[key] = _OrderedRows(
            one.row_nll[order], one.row_tokens[order], one.document[order], one.about.documents_known
        )
    return max(alike.values(), key=len, default={})
