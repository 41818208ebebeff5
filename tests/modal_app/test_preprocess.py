"""Real datasets of the tiny task: prepared, counted, named, damaged and prepared again."""

from __future__ import annotations

import hashlib
import json
import shutil

import pytest

from modal_app.store.layout import Store
from modal_app.store.state import Phase, observe
from modal_app.store.step import FailureReason, StepKind
from tests.modal_app.steps import Warm, outcome, preprocess_step, train_step

pytestmark = pytest.mark.slow


def test_a_dataset_is_prepared_counted_and_named(warm: Warm, store: Store) -> None:
    manifest = json.loads(store.manifest("data").read_text())
    rows = len((store.inputs / "rows.jsonl").read_text().splitlines())
    assert manifest["rows"] + manifest["eval_rows"] == manifest["given_rows"] == rows
    assert manifest["dropped_rows"] == 0
    assert 0 < manifest["trained_tokens"] < manifest["tokens"]
    assert 2 < manifest["distinct_trained_tokens"] < manifest["trained_tokens"]
    assert manifest["tokens"] / manifest["rows"] < manifest["longest_row"] < manifest["tokens"]
    assert manifest["versions"]["axolotl"]
    rows_folder = store.prepared_dataset("data") / manifest["hashes"]["train"]
    assert rows_folder.is_dir()
    arrow = next(rows_folder.rglob("*.arrow"))
    listed = manifest["files"][arrow.relative_to(store.prepared_dataset("data")).as_posix()]
    assert listed["sha256"] == hashlib.sha256(arrow.read_bytes()).hexdigest()


def test_rows_that_are_too_long_are_counted_as_dropped(warm: Warm, store: Store) -> None:
    assert warm.run(preprocess_step("short", sequence_len=13)) == 0
    manifest = json.loads(store.manifest("short").read_text())
    assert manifest["dropped_rows"] > 0
    assert manifest["longest_row"] == 13
    assert manifest["rows"] + manifest["eval_rows"] + manifest["dropped_rows"] == manifest["given_rows"]


def test_evaluated_rows_are_named_by_their_content_and_not_by_their_run(warm: Warm, store: Store) -> None:
    nothing_held_out = preprocess_step("all", val_set_size=0, eval_steps=None)
    for step in (preprocess_step("again"), preprocess_step("reshuffled", seed=7), nothing_held_out):
        assert warm.run(step) == 0
    kept = {key: json.loads(store.manifest(key).read_text()) for key in ("data", "again", "reshuffled", "all")}
    assert kept["again"]["hashes"] == kept["data"]["hashes"]
    assert kept["again"]["eval_fingerprint"] == kept["data"]["eval_fingerprint"]
    assert kept["reshuffled"]["eval_fingerprint"] != kept["data"]["eval_fingerprint"]
    assert kept["all"]["eval_fingerprint"] is None


def test_a_dataset_moved_to_its_place_but_not_marked_is_made_again(warm: Warm, store: Store) -> None:
    step = preprocess_step("unmarked")
    assert warm.run(step) == 0
    before = json.loads(store.manifest("unmarked").read_text())
    store.manifest("unmarked").unlink()
    assert observe(store, StepKind.PREPROCESS, "unmarked").phase is Phase.LOST
    assert warm.run(step) == 0
    after = json.loads(store.manifest("unmarked").read_text())
    assert (after["attempt"], after["hashes"]) == (2, before["hashes"])


def test_a_damaged_dataset_is_not_trained_on_and_is_prepared_again(warm: Warm, store: Store) -> None:
    shutil.copytree(store.prepared_dataset("data"), store.prepared_dataset("damaged"))
    rows = next(store.prepared_dataset("damaged").rglob("*.arrow"))
    content = rows.read_bytes()
    rows.write_bytes(content[:-4096] + bytes(4096))
    step = train_step("on-damaged-rows", data_key="damaged")
    assert warm.run(step) == 1
    ended = outcome(store, step)
    assert ended.reason is FailureReason.DATA
    assert ended.message.startswith("the prepared dataset damaged is damaged: the content of ")
    assert warm.run(preprocess_step("damaged")) == 0
    assert next(store.prepared_dataset("damaged").rglob("*.arrow")).read_bytes() == content
    assert (
        "is prepared again: the content of" in store.folder(StepKind.PREPROCESS, "damaged").attempt(1).log.read_text()
    )
