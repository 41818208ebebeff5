"""Settings with the losses of the same held-out rows, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modal_app.held_out.row_losses import RowLosses

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """Settings of one eval fingerprint. Runs that differ in their seed alone are one setting."""

    settings: tuple[str, ...]
    """Their names, in the order of the columns of `nll`."""
    runs: tuple[tuple[str, ...], ...]
    """The runs of each setting, one a seed, by key."""
    nll: tuple[Floats, ...]
    """For each setting, the summed negative log-likelihood by run and row."""
    tokens: Floats
    """The trained tokens of each row."""
    document: NDArray[np.intp]
    """The document of each row, counted from 0."""
    documents_known: bool

    @property
    def seeds(self) -> Floats:
        """How many runs each setting has."""
        return np.array([len(runs) for runs in self.runs], np.float64)

    @property
    def run_means(self) -> tuple[Floats, ...]:
        """For each setting, the mean loss over all tokens of each of its runs."""
        return tuple(nll.sum(axis=1) / self.tokens.sum() for nll in self.nll)


def judged(settings: Mapping[str, Sequence[str]], losses: Mapping[str, RowLosses]) -> Judged | None:
    """Bring the rows of runs into one order. `settings`: name -> its runs, by key; `losses`: those of each run.

    A run without losses, with other rows than the first, or with a loss that is not finite is left out, and so is a
    setting without runs. None if nothing is left.
    """
    first: RowLosses | None = None
    found: dict[str, list[str]] = {}
    rows: dict[str, Floats] = {}
    for name, keys in settings.items():
        for key in keys:
            one = losses.get(key)
            if one is None or not np.isfinite(one.nll).all():
                continue
            first = first or one
            if not np.array_equal(np.sort(first.id), np.sort(one.id)):
                continue
            rows[key] = one.row_nll[np.argsort(one.id)]
            found.setdefault(name, []).append(key)
    if first is None:
        return None
    order = np.argsort(first.id)
    return Judged(
        settings=tuple(found),
        runs=tuple(map(tuple, found.values())),
        nll=tuple(np.stack([rows[key] for key in keys]) for keys in found.values()),
        tokens=first.row_tokens[order],
        document=np.unique(first.document[order], return_inverse=True)[1],
        documents_known=first.about.documents_known,
    )
