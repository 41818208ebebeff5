"""The real schema, called as the launcher does: what it refuses, for which keys, and what it leaves unchanged."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from modal_app.oneshot.user_modules import MISSING
from modal_app.oneshot.validate import ANSWERS, QUESTIONS
from modal_app.store.sources import RUN
from tests.modal_app.steps import ENVIRONMENT

A100 = {"bf16": True, "fp8": False, "tf32": True, "n_gpu": 8, "compute_capability": "sm_80"}
PLAIN = {
    "base_model": "nobody/nothing",
    "datasets": [{"path": "nobody/nothing", "type": "alpaca"}],
    "learning_rate": 1e-4,
    "num_epochs": 1,
    "micro_batch_size": 1,
    "seed": 1,
}
LIGER = "axolotl.integrations.liger.LigerPlugin"
CCE = "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"
MINE = "mine.Plugin"
"""In PYTHONPATH, too, as it may be at a user's."""
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "good": {},
    "two conflicts": {
        "eval_steps": 5,
        "evals_per_epoch": 2,
        "save_steps": 5,
        "saves_per_epoch": 2,
        "val_set_size": 0.1,
    },
    "an after-rule and a before-rule": {"early_stopping_patience": 3, "warmup_steps": 3, "warmup_ratio": 0.1},
    "types": {"sequence_len": "abc", "datasets": [{"path": "x", "shards": "y"}]},
    "a union": {"bf16": "maybe"},
    "deep": {"trl": {"beta": "x"}},
    "missing": {"learning_rate": None, "datasets": None},
    "for this GPU": {"fp8": True},
    "a rule that names no key": {"adapter": "qlora", "load_in_8bit": True},
    "crashes Axolotl": {"tensor_parallel_size": 2, "deepspeed": {"zero_optimization": {"stage": 3}}},
    "with a plugin": {"plugins": [LIGER], "liger_glu_activation": "yes, please"},
    "after a plugin": {"liger_glu_activation": "yes, please"},
    "no such plugin": {"plugins": ["no.such.Plugin"]},
    "looks up": {"plugins": ["looks_up.Plugin"]},
    "own code": {"plugins": [MINE]},
    "connects": {"plugins": ["connects.Plugin"]},
    "starts servers": {
        "plugins": ["axolotl.integrations.nemo_gym.NemoGymPlugin"],
        "nemo_gym_enabled": True,
        "nemo_gym_config_paths": ["x.yaml"],
        "nemo_gym_datasets": [{"path": "x.jsonl", "server_name": "x"}],
    },
    "deprecated": {"dpo_beta": 0.1},
    "an optimizer's package": {"optimizer": "came_pytorch"},
    "a plugin's package": {"plugins": [CCE], "bf16": True},
    "not a template": {"chat_template": "jinja", "chat_template_jinja": "{% for x %}"},
    "no such format": {"datasets": [{"path": "x", "type": "alpca"}, {"path": "x", "type": "alpaca.load_nothing"}]},
    "no such preference": {"rl": "dpo", "datasets": [{"path": "x", "split": "train", "type": "chatml.argilla"}]},
    "no such class": {"tokenizer_type": "LlamaTokenizerFats"},
}


@pytest.fixture(scope="module")
def verdicts(trainer: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    return dict(zip(CHANGES, _ask(trainer, tmp_path_factory.mktemp("asked"), list(CHANGES.values())), strict=True))


def _ask(trainer: Path, folder: Path, changes: Sequence[Mapping[str, Any]]) -> list[Any]:
    configs = [{key: value for key, value in {**PLAIN, **one}.items() if value is not None} for one in changes]
    own = {MINE: {"code": {"mine.py": str(folder / "mine.py")}}}
    questions = [
        {"config": config, "capabilities": A100} | own.get(str(config.get("plugins", [""])[0]), {})
        for config in configs
    ]
    (folder / "mine.py").write_text("from axolotl.integrations.base import BasePlugin\nclass Plugin(BasePlugin): ...\n")
    (folder / QUESTIONS).write_text(json.dumps(questions))
    (folder / "looks_up.py").write_text("import socket\nsocket.getaddrinfo('127.0.0.1', 1)\n")
    (folder / "connects.py").write_text("import socket\nsocket.socket().connect(('127.0.0.1', 1))\n")
    done = subprocess.run(
        [trainer, RUN, "validate", folder], env={**ENVIRONMENT, "PYTHONPATH": str(folder)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    answers: list[Any] = json.loads((folder / ANSWERS).read_text())
    return answers


def _keys(verdict: Mapping[str, Any]) -> list[list[str]]:
    return [sorted(problem["keys"]) for problem in verdict["problems"]]


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("change", ["good", "own code"])
def test_a_good_config_is_left_alone(verdicts: Mapping[str, Any], change: str) -> None:
    assert verdicts[change] == {"problems": [], "warnings": []}


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("two conflicts", [["eval_steps", "evals_per_epoch"], ["save_steps", "saves_per_epoch"]]),
        ("an after-rule and a before-rule", [["warmup_ratio", "warmup_steps"], ["early_stopping_patience"]]),
        ("a union", [["bf16"]]),
        ("deep", [["trl.beta"]]),
        ("for this GPU", [["fp8"]]),
        ("a rule that names no key", [["adapter", "load_in_8bit"]]),
        ("crashes Axolotl", [["deepspeed", "tensor_parallel_size"]]),
        ("no such plugin", [["plugins"]]),
        ("no such class", [["tokenizer_type"]]),
        ("an optimizer's package", [["optimizer"]]),
        ("a plugin's package", [["plugins"]]),
        ("not a template", [["chat_template_jinja"]]),
        ("no such format", [["datasets.0.type"], ["datasets.1.type"]]),
        ("no such preference", [["datasets.0.type"]]),
    ],
)
def test_every_refusal_is_reported_at_once_with_its_keys(
    verdicts: Mapping[str, Any], change: str, keys: list[list[str]]
) -> None:
    assert _keys(verdicts[change]) == keys


def test_a_package_that_is_missing_is_named_as_it_is_imported(verdicts: Mapping[str, Any]) -> None:
    missing = {change: verdicts[change]["problems"][0] for change in ("an optimizer's package", "a plugin's package")}
    assert {one["kind"] for one in missing.values()} == {MISSING}
    assert [one["package"] for one in missing.values()] == ["came_pytorch", "cut_cross_entropy"]
    assert "ml-cross-entropy.git@" in missing["a plugin's package"]["message"]


def test_a_wrong_type_is_found_wherever_it_is(verdicts: Mapping[str, Any]) -> None:
    assert ["datasets.0.shards"] in _keys(verdicts["types"])
    assert ["sequence_len"] in _keys(verdicts["types"])


def test_what_is_missing_is_named(verdicts: Mapping[str, Any]) -> None:
    assert ["learning_rate"] in _keys(verdicts["missing"])
    assert ["datasets", "pretraining_dataset"] in _keys(verdicts["missing"])


def test_a_plugins_own_keys_count_for_the_config_that_names_it_only(verdicts: Mapping[str, Any]) -> None:
    assert _keys(verdicts["with a plugin"]) == [["liger_glu_activation"]]
    assert verdicts["after a plugin"]["problems"] == []


def test_validating_starts_nothing(verdicts: Mapping[str, Any]) -> None:
    """The plugin's own registration would clone a repository and start servers, in the home folder."""
    assert verdicts["starts servers"]["problems"] == []


@pytest.mark.parametrize("change", ["looks up", "connects"])
def test_validating_makes_no_request(verdicts: Mapping[str, Any], change: str) -> None:
    (problem,) = verdicts[change]["problems"]
    assert "validated without the network" in problem["message"]


def test_what_axolotl_only_logs_is_a_warning(verdicts: Mapping[str, Any]) -> None:
    assert verdicts["deprecated"]["problems"] == []
    assert any("dpo_beta" in text for text in verdicts["deprecated"]["warnings"])


def test_the_shared_schema_gives_the_same_verdicts_as_axolotls_own(trainer: Path, verdicts: Mapping[str, Any]) -> None:
    """The schema is built once for each list of plugins; Axolotl builds it at every validation."""
    plain = {name: change for name, change in CHANGES.items() if "plugins" not in change}
    asked = [
        (name, {key: value for key, value in {**PLAIN, **change}.items() if value is not None}, A100)
        for name, change in plain.items()
    ]
    done = subprocess.run(
        [trainer, Path(__file__).with_name("axolotl_refusals_script.py")],
        input=json.dumps(asked),
        env={**ENVIRONMENT, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    refused = json.loads(done.stdout.splitlines()[-1])
    by_its_schema = {name for name in plain for problem in verdicts[name]["problems"] if "kind" not in problem}
    assert refused == [name for name in plain if name in by_its_schema]
