from pathlib import Path
from typing import Any

import pytest

from modal_app.process.attempt import environment
from modal_app.store.layout import Store
from modal_app.store.step import Step, StepKind

LOCAL: dict[str, Any] = {"base_model": "inputs/model", "datasets": [{"path": "inputs/rows.jsonl"}]}


def variables(root: Path, config: dict[str, Any]) -> dict[str, str]:
    step = Step(StepKind.PREPROCESS, "key", config, "key")
    folder = Store(root).folder(step.kind, step.key)
    return environment(step, folder, folder.attempt(1))


def test_a_step_that_reads_only_inputs_never_asks_the_hub(tmp_path: Path) -> None:
    assert variables(tmp_path, LOCAL)["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    "beside",
    [
        {"base_model": "owner/model"},
        {"tokenizer_config": "owner/tokenizer"},
        {"lora_model_dir": "owner/adapter"},
        {"datasets": [{"path": "owner/rows"}]},
        {"test_datasets": [{"path": "owner/rows"}]},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_a_step_that_reads_anything_of_the_hub_may_ask_it(tmp_path: Path, beside: dict[str, Any]) -> None:
    assert "HF_HUB_OFFLINE" not in variables(tmp_path, LOCAL | beside)
