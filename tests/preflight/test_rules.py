"""Each rule speaks about the configs that it is for, is quiet about those next to them, and names its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.store.facts import DataManifest
from runner.config.shipped import shipped_root
from runner.preflight.rules import RULES, Rule
from runner.preflight.rules.run_facts import RunFacts
from runner.types import Gpu, ModelFacts
from tests.runner.builders import experiment

HERE = Path(__file__).resolve().parent
BASE: Mapping[str, Any] = {
    "base_model": "NousResearch/Meta-Llama-3-8B-Instruct",
    "datasets": [{"path": "tatsu-lab/alpaca", "type": "alpaca"}],
    "val_set_size": 0.05,
    "sequence_len": 2048,
    "micro_batch_size": 2,
    "gradient_accumulation_steps": 4,
    "num_epochs": 1,
    "adapter": "lora",
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_target_linear": True,
    "optimizer": "adamw_torch_fused",
    "lr_scheduler": "cosine",
    "learning_rate": 2e-4,
    "bf16": True,
    "attn_implementation": "flash_attention_2",
    "evals_per_epoch": 2,
    "saves_per_epoch": 1,
    "logging_steps": 1,
    "seed": 42,
}
BY_NAME: Mapping[str, Rule] = {rule.__name__: rule for rule in RULES}
CASES: Mapping[str, Mapping[str, list[Mapping[str, Any]]]] = {
    rule: cases
    for file in sorted((HERE / "rules").glob("*.yaml"))
    for rule, cases in yaml.safe_load(file.read_text()).items()
}


def _cases(kind: str) -> list[Any]:
    return [
        pytest.param(rule, case, id=f"{rule}: {json.dumps({key: one for key, one in case.items() if key != 'says'})}")
        for rule, cases in CASES.items()
        for case in cases[kind]
    ]


def _asked(case: Mapping[str, Any], place: Path) -> RunFacts:
    """`change`: of BASE. `gpu`: name and number, such as [h100, 8]. `model`: a file of conf/model. `files`: name ->
    rows, lines, or one `row` and how many `times`. `prepared`: facts of its prepared dataset.
    """
    for name, given in case.get("files", {}).items():
        rows = [given["row"]] * given["times"] if isinstance(given, Mapping) else given
        lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("\n".join(lines) + "\n")
    axolotl = {key: value for key, value in {**BASE, **case.get("change", {})}.items() if value is not None}
    facts = _shipped(case["model"]) if "model" in case else None
    if facts is not None:
        axolotl["base_model"] = facts.base_model
    made = experiment(axolotl, gpu=Gpu(*case.get("gpu", ("h100", 1))))
    return RunFacts(replace(made, model=facts), DataManifest.of(case.get("prepared", {})))


def _shipped(name: str) -> ModelFacts:
    return ModelFacts(**yaml.safe_load((shipped_root() / "conf" / "model" / f"{name}.yaml").read_text())["model"])


def test_every_rule_has_cases_of_both_kinds_and_no_case_is_of_a_rule_that_is_gone() -> None:
    assert sorted(CASES) == sorted(BY_NAME)
    assert all(cases["speaks"] and cases["quiet"] for cases in CASES.values())


@pytest.mark.parametrize(("rule", "case"), _cases("speaks"))
def test_a_rule_says_what_is_wrong_and_where_that_is_documented(
    rule: str, case: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = list(BY_NAME[rule](_asked(case, tmp_path)))
    text = "\n".join(one.text for one in found)
    assert [piece for piece in case["says"] if piece not in text] == [], text
    assert all(one.source.startswith("https://") for one in found), text
    assert {one.severity.value for one in found} == {case.get("severity", "warning")}, text


@pytest.mark.parametrize(("rule", "case"), _cases("quiet"))
def test_a_rule_is_quiet_about_a_sound_config(
    rule: str, case: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert [one.text for one in BY_NAME[rule](_asked(case, tmp_path))] == []
