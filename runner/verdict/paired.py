"""The per-row losses of two runs -> where they differ, each part with its interval. Pure.

One bootstrap resamples the documents for all parts, so their intervals can hold at once. A part with few documents gets
none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from modal_app.held_out.row_losses import RowLosses
from runner.verdict.draws import degrees_of_freedom, random_draws
from runner.verdict.judged import Floats
from runner.verdict.where import By, MovedRow, Part, Where

DRAWS = 10_000
LEVEL = 0.95
ENOUGH_DOCUMENTS = 10
MOST_MOVED = 20
MOST_TURNS = 4
"""Later ones are one part."""
QUARTERS = (0.25, 0.5, 0.75)

Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Pair:
    """The rows of both runs in one order, and below, their turns. Losses are matrices turns x 2."""

    id: NDArray[np.uint64]
    document: Indices
    """Counted from 0."""
    dataset: NDArray[np.uint16]
    datasets: tuple[str, ...]
    documents_known: bool
    length: NDArray[np.int32]
    row: Indices
    """Of each turn."""
    turn: Indices
    """The number of each turn in its row, from 0."""
    tokens: Floats
    """Of each turn."""
    nll: Floats


def where(first: RowLosses, second: RowLosses, *, draws: int = DRAWS, level: float = LEVEL) -> Where | None:
    """None unless both rate the same rows, with a finite loss each."""
    pair = _paired(first, second)
    if pair is None or not pair.tokens.sum():
        return None
    parts = list(_parts(pair))
    masks = [np.ones(len(pair.row), bool), *(mask for _, _, mask in parts)]
    measured = [_measured(pair, mask) for mask in masks]
    half = _half_widths(pair, masks, draws, level)
    overall, low, high = measured[0], *_around(measured[0].difference, half[0])
    better, worse = _moved(pair)
    return Where(
        rows=len(pair.id),
        documents=overall.documents,
        documents_known=pair.documents_known,
        tokens=overall.tokens,
        losses=overall.losses,
        difference=overall.difference,
        low=low,
        high=high,
        parts=tuple(
            Part(
                by, name, one.rows, one.documents, one.tokens, one.losses, one.difference, *_around(one.difference, at)
            )
            for (by, name, _), one, at in zip(parts, measured[1:], half[1:], strict=True)
        ),
        better=better,
        worse=worse,
    )


def _paired(first: RowLosses, second: RowLosses) -> _Pair | None:
    order, other = np.argsort(first.id), np.argsort(second.id)
    turns, others = _turns_in(first, order), _turns_in(second, other)
    if not (
        np.array_equal(first.id[order], second.id[other])
        and np.array_equal(first.tokens[turns], second.tokens[others])
        and np.array_equal(first.turns[order], second.turns[other])
        and np.isfinite(first.nll).all()
        and np.isfinite(second.nll).all()
    ):
        return None
    known = second if second.about.documents_known and not first.about.documents_known else first
    named = second if second.about.datasets and not first.about.datasets else first
    in_order = {id(first): order, id(second): other}
    counts = first.turns[order]
    row = np.repeat(np.arange(len(order)), counts)
    return _Pair(
        id=first.id[order],
        document=np.unique(known.document[in_order[id(known)]], return_inverse=True)[1],
        dataset=named.dataset[in_order[id(named)]],
        datasets=named.about.datasets,
        documents_known=known.about.documents_known,
        length=first.length[order],
        row=row,
        turn=np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts),
        tokens=first.tokens[turns].astype(np.float64),
        nll=np.stack([first.nll[turns], second.nll[others]], axis=1),
    )


def _turns_in(losses: RowLosses, order: Indices) -> Indices:
    """The places of all turns, if rows are in this order."""
    starts = np.cumsum(losses.turns) - losses.turns
    counts = losses.turns[order]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    places: Indices = np.repeat(starts[order], counts) + within
    return places


def _parts(pair: _Pair) -> Iterator[tuple[By, str, Mask]]:
    """The turns of each. A division into a single part says nothing."""
    bins, names = _length_bins(pair.length)
    turn = np.minimum(pair.turn, MOST_TURNS)
    divisions: list[tuple[By, Indices, Callable[[int], str]]] = [
        (By.LENGTH, bins[pair.row], lambda at: names[at]),
        (By.TURN, turn, lambda at: f"answer {at + 1}" if at < MOST_TURNS else f"answer {at + 1} and later"),
    ]
    if pair.datasets:
        divisions.insert(0, (By.DATASET, pair.dataset[pair.row].astype(np.intp), lambda at: pair.datasets[at]))
    for by, of_turn, name in divisions:
        found = np.unique(of_turn).tolist()
        if len(found) > 1:
            yield from ((by, name(at), of_turn == at) for at in found)


def _length_bins(length: NDArray[np.int32]) -> tuple[Indices, list[str]]:
    """The bin of each row, and the bins' names."""
    edges = np.unique(np.quantile(length, QUARTERS, method="lower"))
    bins = np.searchsorted(edges, length, side="left")
    bounds = {at: (int(length[bins == at].min()), int(length[bins == at].max())) for at in np.unique(bins).tolist()}
    names = [f"{low} to {high} tokens" if low < high else f"{low} tokens" for low, high in bounds.values()]
    return np.unique(bins, return_inverse=True)[1], names


@dataclass(frozen=True, slots=True)
class _Difference:
    rows: int
    documents: int
    tokens: int
    losses: tuple[float, float]

    @property
    def difference(self) -> float:
        return self.losses[1] - self.losses[0]


def _measured(pair: _Pair, mask: Mask) -> _Difference:
    rows = np.unique(pair.row[mask])
    tokens = pair.tokens[mask].sum()
    first, second = (pair.nll[mask].sum(axis=0) / max(tokens, 1)).tolist()
    return _Difference(len(rows), len(np.unique(pair.document[rows])), int(tokens), (first, second))


def _half_widths(pair: _Pair, masks: list[Mask], number: int, level: float) -> list[float | None]:
    """Half the width of each part's interval. The first is that of all rows, and holds alone; the others hold at once.
    The formula is that of `intervals.intervals_from`, for two settings without seeds."""
    sums, tokens = _by_document(pair, masks)
    documents = (tokens > 0).sum(axis=0)
    degrees = degrees_of_freedom(tokens)
    draws = random_draws(len(tokens), 1, seed_degrees=0, document_degrees=float(degrees[0]), number=number)
    off = draws.means_of(sums - tokens * (sums.sum(axis=0) / np.maximum(tokens.sum(axis=0), 1)), tokens)
    spread = off.std(axis=0, ddof=1)
    of_parts = np.random.default_rng([0, 2]).chisquare(degrees[1:], (number, len(masks) - 1))
    chi_square = np.column_stack([draws.documents_chi_square, of_parts])
    ratios = np.divide(np.abs(off), spread, out=np.zeros_like(off), where=spread > 0) * np.sqrt(degrees / chi_square)
    enough = documents >= ENOUGH_DOCUMENTS
    several: Floats = ratios[:, 1:][:, enough[1:]]
    alone, at_once = (float(np.quantile(one, level)) for one in (ratios[:, 0], several.max(axis=1, initial=0.0)))
    se = spread * np.sqrt(documents / np.maximum(documents - 1, 1))
    return [
        float(one * (at_once if at else alone)) if ok else None
        for at, (one, ok) in enumerate(zip(se, enough, strict=True))
    ]


def _by_document(pair: _Pair, masks: list[Mask]) -> tuple[Floats, Floats]:
    """What each document adds to the difference of each part, and its tokens: documents x parts."""
    of_turn, number = pair.document[pair.row], len(np.unique(pair.document))
    gap = pair.nll[:, 1] - pair.nll[:, 0]

    def summed(values: Floats) -> Floats:
        columns = [np.bincount(of_turn[mask], weights=values[mask], minlength=number) for mask in masks]
        return np.stack(columns, axis=1)

    return summed(gap), summed(pair.tokens)


def _around(middle: float, half: float | None) -> tuple[float | None, float | None]:
    return (None, None) if half is None else (middle - half, middle + half)


def _moved(pair: _Pair) -> tuple[tuple[MovedRow, ...], tuple[MovedRow, ...]]:
    """The rows at which the second gains most, and those at which it loses most."""

    def by_row(values: Floats) -> Floats:
        return np.bincount(pair.row, weights=values, minlength=len(pair.id))

    tokens, first, second = by_row(pair.tokens), by_row(pair.nll[:, 0]), by_row(pair.nll[:, 1])
    moved = second - first
    order = np.argsort(moved, kind="stable")

    def described(at: int) -> MovedRow:
        return MovedRow(
            id=f"{int(pair.id[at]):016x}",
            dataset=pair.datasets[int(pair.dataset[at])] if pair.datasets else None,
            length=int(pair.length[at]),
            tokens=int(tokens[at]),
            losses=(float(first[at] / tokens[at]), float(second[at] / tokens[at])),
            moved=float(moved[at]),
        )

    better = tuple(described(at) for at in order[:MOST_MOVED].tolist() if moved[at] < 0)
    worse = tuple(described(at) for at in order[::-1][:MOST_MOVED].tolist() if moved[at] > 0)
    return better, worse
