"""The list of Axolotl's keys: complete, current, and read at every depth."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from runner.config.fields import axolotl_fields, unknown_key, unknown_keys
from runner.environment import trainer_environment
from runner.preflight.findings import Severity
from runner.preflight.keys import key_findings
from tests.modal_app.steps import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]


def test_every_key_of_the_schema_is_listed_under_each_of_its_names() -> None:
    listed = json.loads((ROOT / "runner/config/axolotl_fields.json").read_text(encoding="utf-8"))
    assert len(listed["fields"]) == 413
    assert {"model_type", "type_of_model"} <= axolotl_fields().top.keys()


@pytest.mark.parametrize(
    "key",
    [
        "learning_rate",
        "datasets.0.path",
        "test_datasets.1.split",
        "special_tokens.pad_token",
        "deepspeed.zero_optimization.stage",
        "peft.loftq_config.loftq_bits",
        "lora_target_modules.0",
        "fsdp_config.offload_params",
        "liger_rope",
    ],
)
def test_a_key_of_axolotl_is_known(key: str) -> None:
    assert unknown_key(key.split("."), axolotl_fields()) is None


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("learnig_rate", "Did you mean learning_rate"),
        ("datasets.0.pathh", "Did you mean path?"),
        ("datasets.path", "write datasets.0.path"),
        ("learning_rate.peak", "is a value"),
        ("special_tokens.pad", "There are: additional_special_tokens"),
    ],
)
def test_a_wrong_key_is_named_with_the_way_out(key: str, said: str) -> None:
    assert said in str(unknown_key(key.split("."), axolotl_fields()))


def test_every_wrong_key_of_a_config_is_found_at_every_depth() -> None:
    config = {
        "learning_rate": 1e-3,
        "datasets": [{"path": "a"}, {"path": "b", "num_samples": 5}],
        "special_tokens": {"pad": "x"},
        "wandb_tags": [],
    }
    sentences = unknown_keys(config, axolotl_fields())
    assert [sentence.split(".")[0] for sentence in sentences] == [
        "Axolotl has no key datasets",
        "Axolotl has no key special_tokens",
        "Axolotl has no key wandb_tags",
    ]


@pytest.mark.parametrize(
    "config",
    [
        {"datasets": [{"path": "a", "type": {"field_prompt": "question", "field_chosen": "good"}}]},
        {"datasets": [{"path": "a", "type": {"field_instruction": "ask", "format": "{instruction}"}}]},
        {"datasets": [{"path": "synthetic", "type": "_synthetic", "sequence_length": 8}]},
        {"fsdp_config": {"fsdp_offload_params": True, "version": 2}},
        {"image_size": [448, 448]},
    ],
)
def test_what_only_one_member_of_a_union_or_an_older_name_allows_is_known(config: dict[str, Any]) -> None:
    assert unknown_keys(config, axolotl_fields()) == []


def test_a_plugins_key_counts_where_the_plugin_is_named() -> None:
    liger = "axolotl.integrations.liger.LigerPlugin"
    assert unknown_keys({"liger_rope": True, "plugins": [liger]}, axolotl_fields()) == []
    assert "add axolotl.integrations.liger." in unknown_keys({"liger_rope": True}, axolotl_fields())[0]


def test_with_a_users_own_plugin_nothing_is_said_about_keys_at_the_top() -> None:
    config = {"my_key": 1, "plugins": ["mine.Plugin"], "datasets": [{"pathh": 1}]}
    assert len(unknown_keys(config, axolotl_fields())) == 1


def test_axolotls_own_advice_is_quoted_for_keys_that_it_has_renamed_or_removed() -> None:
    old = {"rope_scaling": {"type": "yarn"}, "dpo_beta": 0.1, "noisy_embedding_alpha": 5, "s2_attention": False}
    found = {one.key: one for one in key_findings({"seed": 1, **old})}
    assert "it should now be a key under `model_config`" in found["rope_scaling"].text
    assert found["rope_scaling"].severity is Severity.ERROR
    assert "Axolotl says: dpo_beta is deprecated, use rl_beta instead" in found["dpo_beta"].text
    assert {found[key].severity for key in ("dpo_beta", "noisy_embedding_alpha")} == {Severity.WARNING}
    assert "s2_attention" not in found
    below = unknown_keys({"fsdp_config": {"forward_prefetch": True}}, axolotl_fields())
    assert below == [
        "Axolotl has no key fsdp_config.forward_prefetch any more. It says: fsdp_config.forward_prefetch is an "
        "FSDP1-only option and FSDP1 has been removed from Axolotl. It has no FSDP2 equivalent, please remove "
        "it. See docs/multi-gpu.qmd#sec-migrate-fsdp1-fsdp2 for the migration guide."
    ]
    assert "Remove it and choose fsdp=fsdp2" in unknown_keys({"fsdp": ["full_shard"]}, axolotl_fields())[0]
    # A key is not old if only a value of it, or its combination with other keys, is old.
    current = {"fsdp_version": 2, "pretraining_dataset": [{"path": "x"}], "streaming": True, "rl": "dpo"}
    assert list(key_findings({"seed": 1, **current})) == []


@pytest.mark.slow
def test_the_list_is_what_the_locked_axolotl_says(tmp_path: Path) -> None:
    """Renew it with `make fields`."""
    listed = tmp_path / "fields.json"
    subprocess.run(
        [trainer_environment.find(), ROOT / "modal_app" / "trainer" / "list_fields.py", listed],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
    )
    assert listed.read_text() == (ROOT / "runner/config/axolotl_fields.json").read_text()
