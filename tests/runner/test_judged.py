from dataclasses import replace

import numpy as np

from modal_app.held_out.row_losses import About, RowLosses
from runner.verdict.judged import judged

IDS = [5, 3, 9, 4]


def losses_of(ids: list[int], nll: list[float], *, document: list[int], tokens: list[int] | None = None) -> RowLosses:
    n = len(ids)
    return RowLosses(
        About("rows", 10, 1.0, (), True),
        id=np.array(ids, np.uint64),
        document=np.array(document, np.uint64),
        dataset=np.zeros(n, np.uint16),
        length=np.full(n, 9, np.int32),
        batch=np.arange(n, dtype=np.int32),
        turns=np.ones(n, np.int32),
        tokens=np.array(tokens or [2] * n, np.int32),
        nll=np.array(nll),
    )


A = losses_of(IDS, [5.0, 3.0, 9.0, 4.0], document=[70, 70, 80, 90])
B = losses_of([3, 4, 5, 9], [3.5, 4.5, 5.5, 9.5], document=[70, 90, 70, 80])


def test_rows_are_matched_by_their_id_in_whatever_order_they_were_written() -> None:
    of = judged({"a": ["run a"], "b": ["run b"]}, {"run a": A, "run b": B})
    assert of is not None
    assert [one.tolist() for one in of.nll] == [[[3.0, 4.0, 5.0, 9.0]], [[3.5, 4.5, 5.5, 9.5]]]
    assert of.document.tolist() == [0, 2, 0, 1]
    assert of.documents == 3


def test_runs_with_other_rows_than_most_or_without_finite_losses_are_left_out() -> None:
    other = losses_of([1, 2], [1.0, 2.0], document=[1, 2])
    broken = replace(A, nll=np.array([1.0, np.nan, 1.0, 1.0]))
    settings = {"other": ["other"], "a": ["a", "broken"], "b": ["b", "not there"]}
    of = judged(settings, {"other": other, "a": A, "b": B, "broken": broken})
    assert of is not None
    assert of.runs == (("a",), ("b",))


def test_rows_without_trained_tokens_are_left_out() -> None:
    of = judged({"a": ["a"]}, {"a": losses_of(IDS, [5.0, 0.0, 9.0, 4.0], document=[1, 2, 3, 4], tokens=[2, 0, 2, 2])})
    assert of is not None
    assert of.tokens.tolist() == [2, 2, 2]
    assert of.documents == 3


def test_what_one_run_knows_of_the_documents_counts_for_all() -> None:
    unknown = replace(A, about=replace(A.about, documents_known=False), document=A.id)
    of = judged({"a": ["run a"], "b": ["run b"]}, {"run a": unknown, "run b": B})
    assert of is not None
    assert of.documents_known
    assert of.documents == 3


def test_a_single_document_says_nothing_about_others() -> None:
    assert judged({"a": ["a"]}, {"a": losses_of(IDS, [1.0] * 4, document=[1] * 4)}) is None


def test_nothing_is_judged_without_losses() -> None:
    assert judged({"a": ["a"]}, {}) is None
