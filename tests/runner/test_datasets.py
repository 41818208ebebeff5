import json
import os
from typing import Any

import pytest

from modal_app.store.layout import Store
from modal_app.store.step import OutcomeStatus, StepKind
from runner.command import data
from runner.console import terminal
from runner.errors import SweepError
from tests.runner.builders import finish

MANIFEST = {
    "rows": 1234,
    "tokens": 56789,
    "eval_rows": 34,
    "dropped_rows": 0,
    "eval_rows_in_training": 2,
    "eval_fingerprint": "0123456789abcdef",
}
SAMPLES = [
    {
        "split": "train",
        "row": 3,
        "segments": [
            {"text": "[INST] 2+2? [/INST]", "trained": False},
            {"text": "[4]\n", "trained": True},
        ],
    }
]


def prepared(store: Store, key: str, at: int = 0, **manifest: Any) -> None:
    finish(store, StepKind.PREPROCESS, key, manifest=MANIFEST | manifest)
    (store.prepared_dataset(key) / "samples.json").write_text(json.dumps(SAMPLES))
    for folder in (store.prepared_dataset(key), store.folder(StepKind.PREPROCESS, key).path):
        os.utime(folder, (at, at))


def shown(store: Store, requested: str | None, capsys: pytest.CaptureFixture[str], *, as_json: bool = False) -> Any:
    data.show(store, requested, as_json=as_json)
    text = capsys.readouterr().out
    return json.loads(text) if as_json else text


def test_the_list_shows_each_dataset_once_the_newest_first(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(store, "aaaa", at=1)
    prepared(store, "bbbb", at=2)
    lines = shown(store, None, capsys).splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["bbbb", "aaaa"]
    assert lines[0].split()[1:] == ["succeeded", "1,234", "34", "56,789", "0", "2", "01234567"]
    assert [one["key"] for one in shown(store, None, capsys, as_json=True)["datasets"]] == ["bbbb", "aaaa"]


def test_a_dataset_that_failed_is_listed_as_such(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    finish(store, StepKind.PREPROCESS, "aaaa", OutcomeStatus.FAILED)
    assert shown(store, None, capsys).splitlines()[1].split() == ["aaaa", "failed"]


def test_a_narrow_terminal_shows_every_key_completely_and_names_what_it_leaves_out(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "0123456789abcdef"
    prepared(store, key, trained_tokens=45678, seconds=1.5)
    monkeypatch.setattr(terminal, "PIPE_WIDTH", 80)
    heading, row, printed = shown(store, None, capsys).splitlines()
    assert row.split()[:2] == [key, "succeeded"]
    assert max(len(heading.rstrip()), len(row.rstrip())) <= 80
    assert "…" not in heading + row
    assert printed.startswith("Columns not shown: `seconds`, `held-out rows`")


def test_a_store_without_datasets_lists_none(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(store, None, capsys, as_json=True) == {"version": 1, "datasets": []}
    with pytest.raises(SweepError, match="There is no dataset x"):
        data.show(store, "x", as_json=False)


def test_samples_show_what_is_trained_on_and_every_character_of_it(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    prepared(store, "aaaa")
    text = shown(store, "aa", capsys)
    assert "aaaa: 1,234 rows, 56,789 tokens" in text
    assert "train row 3\n[INST] 2+2? [/INST][[[4]\n]]" in text
    assert "2 eval rows also occur in training." in text


def test_samples_as_json_are_those_of_the_worker(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    prepared(store, "aaaa")
    read = shown(store, "aaaa", capsys, as_json=True)
    assert (read["key"], read["rows"], read["samples"]) == ("aaaa", 1234, SAMPLES)


def test_a_dataset_is_found_by_its_beginning_or_the_way_to_it_is_said(store: Store) -> None:
    prepared(store, "abcd")
    prepared(store, "abef")
    with pytest.raises(SweepError, match=r"ab is the beginning of several datasets' keys: .*Write more"):
        data.show(store, "ab", as_json=False)
    with pytest.raises(SweepError, match=r"no dataset abxd .*Did you mean abcd\?"):
        data.show(store, "abxd", as_json=False)
