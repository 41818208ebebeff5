from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import pytest

from modal_app.cloud.job import mark_name
from modal_app.store.hub import HubItem, fetch_names, hub_items, item_of
from runner.keys.identity import TRAIN_ONLY
from runner.keys.inputs import MODEL_KEYS

COMMIT, OTHER = "a" * 40, "b" * 40
LOCAL = "inputs/0123"


@pytest.mark.parametrize(
    ("config", "items"),
    [
        ({"base_model": LOCAL}, []),
        ({"base_model": "owner/model", "revision_of_model": COMMIT}, [HubItem("owner/model", COMMIT)]),
        (
            {"base_model": "owner/model", "tokenizer_config": "owner/model", "revision_of_model": COMMIT},
            [HubItem("owner/model", COMMIT)],
        ),
        (
            {"base_model": LOCAL, "tokenizer_config": "owner/model", "revision_of_model": COMMIT},
            [HubItem("owner/model", COMMIT, weights=False)],
        ),
        (
            {"base_model": LOCAL, "lora_model_dir": f"owner/adapter@{OTHER}", "processor_config": LOCAL},
            [HubItem("owner/adapter", OTHER)],
        ),
        (
            {"base_model": "m", "revision_of_model": COMMIT, "lora_model_dir": f"owner/adapter@{OTHER}"},
            [HubItem("m", COMMIT), HubItem("owner/adapter", OTHER)],
        ),
        ({"base_model": LOCAL, "lora_model_dir": LOCAL}, []),
    ],
)
def test_a_config_names_what_it_reads_from_the_hub_once_each(config: dict[str, Any], items: list[HubItem]) -> None:
    assert list(hub_items(config)) == items
    names = fetch_names(config)
    assert [item_of(name, config) for name in names] == items
    assert all(len(mark_name(name)) < 255 for name in names), "the mark of a job is a file"


def test_a_tokenizers_repository_is_fetched_without_its_weights() -> None:
    files = ["model-00001-of-00002.safetensors", "pytorch_model.bin", "tokenizer.json", "chat_template.jinja"]
    skipped = HubItem("owner/model", COMMIT, weights=False).skipped
    assert [name for name in files if not any(fnmatch(name, one) for one in skipped)] == files[2:]
    assert not any(fnmatch(files[0], one) for one in HubItem("owner/model", COMMIT).skipped)


def test_all_runs_of_a_dataset_read_the_same_from_the_hub() -> None:
    """Runs use what was fetched for their dataset: the dataset's key covers the keys that name it."""
    assert not TRAIN_ONLY & {*MODEL_KEYS, "revision_of_model"}
