"""The note of a plan whose runs cannot be ranked in one table."""

from __future__ import annotations

from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.launch.held_out import separate_tables_note
from runner.types import DataChoice
from tests.runner.builders import finish, finish_run, plan, run

CHATS = {"datasets": [{"path": "a.jsonl", "type": "chat_template"}], "val_set_size": 0.05}
ALPACA = {"datasets": [{"path": "a.jsonl", "type": "alpaca"}], "val_set_size": 0.05}
FEWER = {"datasets": [{"path": "b.jsonl", "type": "chat_template"}]}
OWN = {"val_set_size": 0, "test_datasets": [{"path": "held-out.jsonl", "type": "chat_template"}]}


@pytest.mark.parametrize(
    ("common", "one", "other", "separate"),
    [
        (CHATS, {}, FEWER, True),
        (CHATS | OWN, {}, FEWER, False),
        (CHATS | OWN, {}, {"test_datasets": [{"path": "c.jsonl", "type": "chat_template"}]}, True),
        (CHATS, {}, {"val_set_size": 0.1}, True),
        (CHATS, {"chat_template": "llama3"}, {"chat_template": "chatml"}, True),
        (ALPACA, {"chat_template": "llama3"}, {"chat_template": "chatml"}, False),
        (CHATS, {"lora_r": 8}, {"lora_r": 16, "seed": 2}, False),
        (CHATS | {"val_set_size": 0}, {}, FEWER, False),
    ],
)
def test_runs_with_different_held_out_rows_are_announced(
    store: Store, common: dict[str, Any], one: dict[str, Any], other: dict[str, Any], separate: bool
) -> None:
    data = DataChoice(seed=42)
    note = separate_tables_note(plan([run(common | one, data=data), run(common | other, data=data)], store), store)
    assert ("have 2 sets of held-out rows, so `compare` ranks them in separate tables" in note) is separate
    assert bool(note) is separate


def test_prepared_datasets_with_the_same_held_out_rows_and_finished_runs_need_no_note(store: Store) -> None:
    runs = [run(CHATS), run(CHATS | FEWER)]
    for one in runs:
        finish(store, StepKind.PREPROCESS, one.data_key, manifest={"eval_fingerprint": "rows"})
    assert not separate_tables_note(plan(runs, store), store)
    finish(store, StepKind.PREPROCESS, runs[0].data_key, manifest={"eval_fingerprint": "other rows"})
    assert separate_tables_note(plan(runs, store), store)
    for one in runs:
        finish_run(store, one, {1: 1.0})
    assert not separate_tables_note(plan(runs, store), store), "the table itself says so"
