"""The losses of held-out rows as W&B gets them."""

from __future__ import annotations

import dataclasses
import json

import pytest

from modal_app.held_out.rows_table import MOST_ROWS, rows_table
from tests.runner.judged_store import draw_losses


def test_each_row_has_its_id_dataset_tokens_and_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hunter22")
    losses = draw_losses(1.5, own=1, rows=3)
    about = dataclasses.replace(losses.about, datasets=("org/rows?token=hunter22",))
    table = rows_table(dataclasses.replace(losses, about=about))
    assert table is not None
    assert [row[:3] for row in table.data] == [[f"{number:016x}", "org/rows?token=***", 20] for number in range(3)]
    assert [row[3] for row in table.data] == losses.nll.tolist()
    json.dumps(table.data)


def test_an_unknown_dataset_is_empty_and_too_many_rows_give_no_table() -> None:
    losses = draw_losses(1.5, own=1, rows=2)
    unknown = rows_table(dataclasses.replace(losses, about=dataclasses.replace(losses.about, datasets=())))
    assert unknown is not None
    assert {row[1] for row in unknown.data} == {""}
    assert rows_table(draw_losses(1.5, own=1, rows=MOST_ROWS)) is not None
    assert rows_table(draw_losses(1.5, own=1, rows=MOST_ROWS + 1)) is None
