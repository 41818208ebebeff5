"""`axosweep ls`: what there is of a run."""

from __future__ import annotations

import json
import os

import pytest

from modal_app.layout import Store
from modal_app.step import StepKind
from tests.runner.pulling import said
from tests.runner.run_files_store import finished_run, merge, write_checkpoint


def test_ls_says_what_there_is_of_a_run(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    one = finished_run(store)
    merge(store, one, "abc")
    write_checkpoint(store.folder(StepKind.TRAIN, one.key), 30, whole=False)
    told = json.loads(said(capsys, "ls", one.key, "--json", store=store))
    parts = {part["part"]: part for part in told["parts"]}
    assert list(parts) == [
        "adapter", "merged-abc", "checkpoint-10", "checkpoint-20", "checkpoint-30", "record", "logs", "data", "rest",
    ]  # fmt: skip
    assert [name for name, part in parts.items() if not part["whole"]] == ["checkpoint-30"]
    size = os.path.getsize(store.folder(StepKind.TRAIN, one.key).model / "adapter_config.json")
    assert parts["adapter"]["bytes"] == 300_000 + size
    told = said(capsys, "ls", one.key, store=store)
    assert "not whole" in told
    assert str(store.root / "runs" / one.key / "model") in told
