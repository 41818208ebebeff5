"""Where one run is better than another: sums that can be checked by hand, and intervals that hold as often as they
should."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runner.verdict.intervals import intervals
from runner.verdict.judged import judged
from runner.verdict.paired import where
from runner.verdict.where import By, Where
from tests.runner.verdict_rows import row_losses


def found(*both: object) -> Where:
    made = where(*both)  # type: ignore[arg-type]
    assert made is not None
    return made


def test_rows_are_matched_by_their_ids_whatever_their_order_and_their_turns() -> None:
    first = row_losses([[1.0], [2.0, 4.0], [8.0]], tokens=[[1], [2, 2], [4]], ids=[7, 8, 9])
    second = row_losses([[8.0], [1.0], [2.0, 1.0]], tokens=[[4], [1], [2, 2]], ids=[9, 7, 8])
    made = found(first, second)
    assert (made.rows, made.tokens, made.losses) == (3, 9, (15 / 9, 12 / 9))
    assert [(row.id[-1], row.moved, row.losses) for row in made.better] == [("8", -3.0, (6 / 4, 3 / 4))]
    assert made.worse == ()
    turns = {part.name: (part.rows, part.tokens, part.difference) for part in made.parts if part.by is By.TURN}
    assert turns == {"answer 1": (3, 7, 0.0), "answer 2": (1, 2, -1.5)}


def test_the_parts_of_a_division_add_up_to_the_total() -> None:
    random = np.random.default_rng(0)
    turns = random.integers(1, 8, 200)
    tokens = [random.integers(1, 9, count).tolist() for count in turns]
    shape: dict[str, Any] = {
        "tokens": tokens, "datasets": ("a", "b", "c"), "dataset": random.integers(0, 3, 200).tolist(),
        "length": random.integers(5, 500, 200).tolist(), "documents": random.integers(0, 60, 200).tolist(),
    }  # fmt: skip
    first, second = (row_losses([random.random(count).tolist() for count in turns], **shape) for _ in range(2))
    made = found(first, second)
    assert (made.documents, made.documents_known) == (len(set(shape["documents"])), True)
    for by, parts in ((By.DATASET, 3), (By.LENGTH, 4), (By.TURN, 5)):
        of = [part for part in made.parts if part.by is by]
        assert len(of) == parts, by
        assert sum(part.tokens for part in of) == made.tokens
        assert sum(part.tokens * part.difference for part in of) == pytest.approx(made.tokens * made.difference)
    assert [part.name for part in made.parts if part.by is By.TURN][-1] == "answer 5 and later"
    assert (len(made.better), len(made.worse)) == (20, 20)
    moves = [row.moved for row in (*made.better, *reversed(made.worse))]
    assert moves == sorted(moves)


def test_a_division_into_one_part_is_left_out() -> None:
    made = found(row_losses([[1.0]] * 30, datasets=("a",)), row_losses([[2.0]] * 30, datasets=("a",)))
    assert made.parts == ()
    assert (made.low, made.high) == (1.0, 1.0), "each row differs by the same"


@pytest.mark.parametrize(
    "second",
    [
        row_losses([[1.0], [2.0]], ids=[1, 3]),
        row_losses([[1.0]]),
        row_losses([[1.0], [2.0]], tokens=[[1], [2]]),
        row_losses([[1.0], [float("nan")]]),
    ],
    ids=["other rows", "fewer rows", "other labels", "no number"],
)
def test_what_is_not_judged_by_the_same_rows_is_not_compared(second: object) -> None:
    assert where(row_losses([[1.0], [2.0]]), second) is None  # type: ignore[arg-type]


def test_what_one_run_knows_of_the_rows_counts_for_both() -> None:
    known = row_losses([[1.0], [2.0]], documents=[5, 5], datasets=("a", "b"), dataset=[1, 0])
    unknown = row_losses([[2.0], [1.0]], ids=[2, 1])
    for made in (found(known, unknown), found(unknown, known)):
        assert (made.documents, made.documents_known) == (1, True)
        assert {part.name: part.rows for part in made.parts} == {"a": 1, "b": 1}
    assert found(unknown, unknown).documents_known is False


def test_a_part_of_few_documents_has_no_interval() -> None:
    nll = np.random.default_rng(1).random((2, 30))
    shape: dict[str, Any] = {"datasets": ("many", "few"), "dataset": [0] * 21 + [1] * 9}
    made = found(*(row_losses([[one] for one in run], **shape) for run in nll))
    assert [part.low is None for part in made.parts] == [False, True]
    assert made.low is not None


def test_rows_of_one_document_are_drawn_together() -> None:
    """Ten copies of thirty rows are no more evidence than the thirty."""
    once = np.random.default_rng(2).random((2, 30))
    alone = found(*(row_losses([[one] for one in run]) for run in once))
    copies = found(*(row_losses([[one] for one in run] * 10, documents=[*range(30)] * 10) for run in once))
    spread = found(*(row_losses([[one] for one in run] * 10, documents=[*range(300)]) for run in once))
    widths = [made.high - made.low for made in (alone, copies, spread) if made.high and made.low]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] < widths[0] / 2.5


def test_intervals_of_parts_hold_at_once_and_that_of_all_rows_alone() -> None:
    """150 pairs of runs without a difference, with documents of several rows, in eight parts."""
    random = np.random.default_rng(3)
    alone = at_once = 0
    for _ in range(150):
        documents = np.repeat(np.arange(60), 3)
        gap = (random.standard_normal(60)[documents] + random.standard_normal(180)) / 2
        shape: dict[str, Any] = {
            "documents": documents.tolist(),
            "datasets": tuple("abcdefgh"),
            "dataset": (documents % 4).tolist(),
        }
        shape |= {"length": random.integers(1, 100, 180).tolist()}
        first = row_losses([[1.0]] * 180, **shape)
        made = where(first, row_losses([[1.0 + one] for one in gap], **shape), draws=1000)
        assert made is not None
        assert len(made.parts) == 8
        alone += _misses(made.low, made.high)
        at_once += any(_misses(part.low, part.high) for part in made.parts)
    assert 2 <= alone <= 15, "5 % of 150 are 7.5"
    assert 2 <= at_once <= 15


def test_of_two_settings_with_a_run_each_the_interval_is_the_verdicts() -> None:
    random = np.random.default_rng(4)
    shape: dict[str, Any] = {"tokens": [[int(one)] for one in random.integers(1, 9, 80)]}
    runs = {
        name: row_losses([[one] for one in random.random(80)], documents=[at // 2 for at in range(80)], **shape)
        for name in "ab"
    }
    of = judged({"first": ["a"], "second": ["b"]}, runs)
    assert of is not None
    made, verdict = found(runs["a"], runs["b"]), intervals(of)
    assert made.difference == pytest.approx(verdict.difference[1, 0], rel=1e-9)
    assert (made.low, made.high) == pytest.approx((verdict.low[1, 0], verdict.high[1, 0]), rel=1e-6)


def _misses(low: float | None, high: float | None) -> bool:
    assert low is not None
    assert high is not None
    return low > 0 or high < 0
