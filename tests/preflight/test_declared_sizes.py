"""A hub dataset cannot be counted here: its declared size shows batches that it cannot fill, and wrong intervals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runner.preflight import quick_findings
from runner.preflight.data import steps_of
from runner.preflight.findings import Severity
from runner.types import DatasetSize

CHATS = "dataset=alpaca_messages_2k"
SIZES = {"o/chats": DatasetSize(2000, 150), "o/texts": DatasetSize(100, 700)}


def texts_of(ask: Callable[..., Any], *words: str) -> list[str]:
    found = quick_findings(ask(*words).experiments[0])
    assert {one.severity for one in found} <= {Severity.WARNING}, "about right is no ground to refuse"
    return [one.text for one in found]


@pytest.mark.parametrize(
    ("words", "pieces"),
    [
        ([CHATS, "micro_batch_size=4000"], ["micro_batch_size=4000", "about 1900 for training, by its declared size"]),
        ([CHATS, "data.limit=40", "micro_batch_size=64"], ["micro_batch_size=64", "about 38 for training"]),
        (["dataset=mix", "micro_batch_size=50000"], ["micro_batch_size=50000", "by its declared size"]),
        ([CHATS, "logging_steps=5000"], ["logging_steps=5000", "is never reached: the run has about", "declared size"]),
        ([CHATS, "max_steps=10", "logging_steps=20"], ["logging_steps=20", "the run has 10 steps"]),
        ([CHATS, "warmup_ratio=null", "warmup_steps=5000"], ["warmup_steps=5000", "declared size"]),
    ],
)
def test_what_the_declared_rows_cannot_do_is_a_warning_that_names_them(
    ask: Callable[..., Any], words: list[str], pieces: list[str]
) -> None:
    assert [text for text in texts_of(ask, *words) if all(piece in text for piece in pieces)]


@pytest.mark.parametrize("words", [[CHATS], [CHATS, "micro_batch_size=1000"], ["dataset=mix", "micro_batch_size=4000"]])
def test_what_they_can_do_is_not_remarked(ask: Callable[..., Any], words: list[str]) -> None:
    assert not [text for text in texts_of(ask, *words) if "a step takes" in text]


@pytest.mark.parametrize(
    ("datasets", "rows"),
    [
        ([{"path": "o/chats", "type": "chat_template"}], 2000),
        ([{"path": "o/chats", "type": "chat_template", "split": "train[:30]"}], 30),
        ([{"path": "o/chats", "type": "chat_template", "split": "test"}], None),
        ([{"path": "o/chats", "type": "chat_template", "shards": 4}], None),
        ([{"path": "o/chats", "type": "chat_template"}, {"path": "o/else", "type": "alpaca"}], None),
        ([{"path": "o/chats", "type": "chat_template"}, {"path": "o/texts", "type": "completion"}], 2200),
    ],
)
def test_declared_rows_count_as_far_as_they_are_those_that_are_read(
    datasets: list[dict[str, Any]], rows: int | None
) -> None:
    """A long text is split: 700 tokens make two samples of at most 512."""
    steps = steps_of({"datasets": datasets, "sequence_len": 512}, 1, SIZES)
    assert (steps and steps.rows) == rows
    assert steps is None or steps.declared
    assert steps_of({"datasets": datasets, "sequence_len": 512}, 1) is None
