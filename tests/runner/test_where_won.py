"""`axosweep compare RUN RUN`: where one run is better, with the rows' texts and both answers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from modal_app.held_out.held_out import SHOWN_CHARACTERS
from modal_app.store.layout import HELD_OUT, Store
from modal_app.store.step import StepKind
from scripts.json_schemas import adapter
from tests.runner.judged_store import draw_losses
from tests.runner.where_store import SECRET, two_runs

Ask = Callable[..., Any]


def test_the_json_has_the_parts_and_the_rows_that_moved_most(store: Store, command: Ask) -> None:
    one, other = two_runs(store)
    printed = command("compare", one.key, other.key, "--json")
    adapter("compare").validate_python(printed)
    where = printed["where"]
    assert (where["rows"], where["documents"], where["documents_known"]) == (30, 30, True)
    assert where["difference"] == pytest.approx((-5.5 + 0.75) / 60)
    assert where["low"] < where["difference"] < where["high"]
    assert [(part["by"], part["name"]) for part in where["parts"]] == [
        ("dataset", "my/rows.jsonl"), ("dataset", "maker/rows"),
        ("length", "10 tokens"), ("length", "11 tokens"), ("length", "12 tokens"),
    ]  # fmt: skip
    assert [len(where[name]) for name in ("better", "worse")] == [10, 5]
    first = where["better"][0]
    assert (first["moved"], first["losses"]) == (pytest.approx(-1.0), pytest.approx([1.0, 0.5]))
    assert (first["dataset"], first["length"], first["tokens"]) == ("maker/rows", 10, 2)
    assert [one["trained"] for one in first["text"]] == [False, True]
    assert printed["notes"] == []


def test_the_other_way_around_it_is_the_opposite(store: Store, command: Ask) -> None:
    one, other = two_runs(store)
    there, back = (
        command("compare", *keys, "--json")["where"] for keys in ((one.key, other.key), (other.key, one.key))
    )
    assert back["difference"] == pytest.approx(-there["difference"])
    assert (back["low"], back["high"]) == (pytest.approx(-there["high"]), pytest.approx(-there["low"]))
    assert [row["id"] for row in back["worse"]] == [row["id"] for row in there["better"]]


def test_both_answers_are_shown_if_both_models_got_the_rows_question(store: Store, command: Ask) -> None:
    one, other = two_runs(store)
    rows = {row["id"]: row for row in command("compare", one.key, other.key, "--json")["where"]["better"]}
    assert rows[f"{3:016x}"]["answers"] == [f"2 by {one.key}", f"2 by {other.key}"]
    assert rows[f"{2:016x}"]["answers"] is None, "its system prompt was not in the prompt"


def test_people_see_the_table_and_a_line_of_the_first_rows(store: Store, command: Ask) -> None:
    one, other = two_runs(store)
    text = command("compare", one.key, other.key)
    assert f"By token, on 30 held-out rows in 30 documents ({other.key} minus {one.key}, 95 % interval):" in text
    assert " by dataset\n  my/rows.jsonl  " in text
    assert "  +0.2500" not in text
    assert "     -1.000  1.0000 -> 0.5000  <user>Say<end><user>question 9<end>A.\n" in text
    assert f"             {other.key} answers: 2 by {other.key}" not in text, "the row is not among the first five"
    assert f"             {other.key} answers: 8 by {other.key}\n" in text
    assert "--json has twenty of each, with their texts." in text


def test_no_secret_and_no_control_character_of_a_row_is_shown(store: Store, command: Ask) -> None:
    one, other = two_runs(store, text=f"{SECRET}\x1b]0;title\x07\rx")
    assert SECRET not in str(command("compare", one.key, other.key, "--json"))
    text = command("compare", one.key, other.key)
    assert SECRET not in text
    assert not {"\x1b", "\x07", "\r"} & set(text)
    assert "***" in text


@pytest.mark.parametrize(
    ("before", "secret"),
    [("", SECRET), ("", "of-this-machine-1"), ("https://me:", "hunter2hunter2@a.b")],
)
def test_a_secret_where_a_segment_is_cut_is_not_shown_by_half(
    store: Store, command: Ask, monkeypatch: pytest.MonkeyPatch, before: str, secret: str
) -> None:
    monkeypatch.setenv("A_TOKEN", "of-this-machine-1")
    one, other = two_runs(store, text="x " * ((SHOWN_CHARACTERS - len(before) - 20) // 2) + f" {before}{secret}")
    printed = str(command("compare", one.key, other.key, "--json"))
    assert "x x x" in printed
    assert secret[:5] not in printed


def test_without_texts_the_rest_is_there_and_the_output_says_why(store: Store, command: Ask) -> None:
    one, other = two_runs(store, described=False)
    printed = command("compare", one.key, other.key, "--json")
    assert {tuple(row["text"]) for row in printed["where"]["better"]} == {()}
    assert printed["notes"][0].startswith("The texts of the rows are not stored")
    (store.prepared_dataset(one.data_key) / HELD_OUT).write_bytes(b"damaged")
    assert command("compare", one.key, other.key, "--json") == printed


def test_without_losses_by_row_the_output_says_what_adds_them(store: Store, command: Ask) -> None:
    one, other = two_runs(store)
    losses = store.folder(StepKind.TRAIN, other.key).losses
    losses.unlink()
    printed = command("compare", one.key, other.key, "--json")
    assert printed["where"] is None
    assert printed["notes"] == [
        f"It is unknown where one is better: {other.key} has no per-row losses; `axosweep eval {other.key}` adds them."
    ]
    losses.write_bytes(b"damaged")
    unknown = "It is unknown where one is better: their per-row losses are of different rows, not finite, or damaged."
    assert unknown in command("compare", one.key, other.key)
    draw_losses(math.nan, own=1).write(losses)
    assert unknown in command("compare", one.key, other.key)


def test_another_metric_has_no_rows(store: Store, command: Ask) -> None:
    one, other = two_runs(store)
    printed = command("compare", one.key, other.key, "--json", "--maximize")
    assert (printed["where"], printed["notes"]) == (None, [])
