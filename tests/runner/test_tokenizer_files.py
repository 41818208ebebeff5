"""The files of a tokenizer, which others have written: a file without the usual form is not a vocabulary."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runner.preflight.tokenizer_files import vocabulary

MODEL = {"type": "BPE", "vocab": {"a": 0, "b": 1}}


def test_added_tokens_are_those_of_both_files(tmp_path: Path) -> None:
    listed = [{"id": 2, "content": "<|end|>"}]
    settings = {"added_tokens_decoder": {"2": {"content": "<|end|>"}, "3": {"content": "<|new|>"}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": MODEL, "added_tokens": listed}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    found = vocabulary(tmp_path)
    assert found is not None
    assert found.added == {"<|end|>": 2, "<|new|>": 3}


@pytest.mark.parametrize(
    ("raw", "settings"),
    [
        ({"model": MODEL, "added_tokens": [{"id": None, "content": "x"}]}, {}),
        ({"model": MODEL, "added_tokens": 7}, {}),
        ({"model": MODEL}, {"added_tokens_decoder": {"seven": {"content": "x"}}}),
        ({"model": {"vocab": [["a", 0.0]]}}, {}),
    ],
)
def test_files_of_another_form_are_not_a_vocabulary(
    tmp_path: Path, raw: dict[str, Any], settings: dict[str, Any]
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(raw))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert vocabulary(tmp_path) is None
