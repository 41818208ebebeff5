"""The held-out rows of a prepared dataset: each one's dataset, document and text."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import pytest

from modal_app.held_out.held_out import HeldOut, HeldOutRow
from modal_app.store.layout import HELD_OUT, Store
from tests.modal_app.steps import DATA, Warm, preprocess_step
from tests.runner.verdict_rows import row_losses

pytestmark = pytest.mark.slow

TEXTS = "inputs/texts.jsonl"
CHATS = {"path": DATA, "ds_type": "json", "type": "chat_template"}


@pytest.fixture(scope="module")
def mix(warm: Warm, store: Store) -> HeldOut:
    """Chats, and texts: twelve that are cut into several rows and lose their ends, and a short one."""
    long = [{"text": " ".join([f"the {at} long text"] * 99)} for at in "abcdefghijkl"]
    texts = "".join(json.dumps(one) + "\n" for one in [*long, {"text": "a short text"}])
    (store.root / TEXTS).write_text(texts)
    held_out = [CHATS | {"split": "train"}, {"path": TEXTS, "ds_type": "json", "type": "completion", "split": "train"}]
    trained = [CHATS | {"split": "train[:1]"}]  # for which no further process starts
    step = preprocess_step(
        "mix", datasets=trained, test_datasets=held_out, val_set_size=0, dataset_num_proc=2, sequence_len=128,
        eval_sequence_len=100, excess_length_strategy="truncate",
    )  # fmt: skip
    assert warm.run(step) == 0
    return _held_out(store, "mix")


def _held_out(store: Store, key: str) -> HeldOut:
    found = HeldOut.read(store.prepared_dataset(key) / HELD_OUT)
    assert found is not None
    return found


def _said(row: HeldOutRow) -> str:
    return "".join(segment.text for segment in row.text)


def test_rows_cut_from_one_text_are_of_one_document(mix: HeldOut) -> None:
    documents, letters = defaultdict(set), {}
    for row in mix.rows:
        if row.dataset == 1 and "long" in _said(row):
            (letter,) = {one for one in "abcdefghijkl" if f" {one} long" in _said(row)}
            documents[letter].add(row.document)
            letters[row.document] = letter
    assert mix.documents_known
    assert all(len(found) == 1 for found in documents.values())
    assert len(letters) == len(documents), "two texts are one document"
    assert len(letters) == 12
    assert all(sum(row.document == one for row in mix.rows) > 1 for one in letters), "a text is one row"


def test_a_row_says_which_dataset_of_the_mix_it_is_of(mix: HeldOut) -> None:
    assert mix.datasets == (DATA, TEXTS)
    assert {("text" in _said(row), row.dataset) for row in mix.rows} == {(False, 0), (True, 1)}


def test_a_conversation_is_a_document_of_its_own_and_its_answer_is_marked(mix: HeldOut) -> None:
    chats = [row for row in mix.rows if row.dataset == 0]
    assert all(row.document == row.id for row in chats)
    assert len({row.id for row in mix.rows}) == len(mix.rows)
    assert [segment.trained for segment in chats[0].text] == [False, True]
    assert chats[0].text[1].text.endswith("<|end|>")


def test_rows_split_off_from_those_to_train_on_are_described_like_others(store: Store, warm: Warm) -> None:
    found = _held_out(store, "data")
    assert found.documents_known
    assert (found.datasets, {row.dataset for row in found.rows}) == ((DATA,), {0})
    assert len(found.rows) == json.loads(store.manifest("data").read_bytes())["eval_rows"]


def test_losses_by_row_get_the_dataset_and_the_document_of_each_row(mix: HeldOut) -> None:
    rows = list(reversed(mix.rows))
    losses = row_losses([[1.0]] * len(rows), ids=[row.id for row in rows])
    described = mix.describe(losses)
    assert (described.about.datasets, described.about.documents_known) == (mix.datasets, True)
    assert described.document.tolist() == [row.document for row in rows]
    assert described.dataset.tolist() == [row.dataset for row in rows]
    others = row_losses([[1.0]])
    assert mix.describe(others) is others


def test_the_file_is_listed_with_its_hash_like_the_rows(store: Store, mix: HeldOut) -> None:
    assert HELD_OUT in json.loads(store.manifest("mix").read_bytes())["files"]


def test_a_damaged_file_is_none(store: Store, mix: HeldOut, tmp_path: Path) -> None:
    whole = (store.prepared_dataset("mix") / HELD_OUT).read_bytes()
    for at, content in enumerate((whole[: len(whole) // 2], b"", b"no gzip", whole[:40] + b"????" + whole[44:])):
        (tmp_path / str(at)).write_bytes(content)
        assert HeldOut.read(tmp_path / str(at)) is None
    assert HeldOut.read(tmp_path / "nothing") is None
