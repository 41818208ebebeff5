"""The good configs are good: Axolotl's schema accepts each, and together they use every block that it has."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from modal_app.inference.config import config_to_load
from runner.config.fields import axolotl_fields, unknown_keys
from runner.environment import trainer_environment
from tests.good_configs.files import FILES, HERE, NAMES, as_axolotl_reads, lay_out

BLOCKS = {name for name, field in axolotl_fields().top.items() if field.models}


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 40


def test_every_block_of_the_schema_is_used_by_one() -> None:
    used = {key for file in FILES for key in as_axolotl_reads(file)}
    assert BLOCKS - used == set()


def test_every_kind_of_dataset_and_of_reinforcement_learning_is_used_by_one() -> None:
    configs = [as_axolotl_reads(file) for file in FILES]
    assert {config["rl"] for config in configs if config.get("rl")} == set(axolotl_fields().top["rl"].choices)
    kinds = {str(kind) for config in configs for kind in _kinds(config)}
    for kind in ("chat_template", "alpaca", "completion", "input_output", "stepwise_supervised", "_synthetic", "own"):
        assert kind in kinds


def test_no_key_of_theirs_is_unknown() -> None:
    found = {file.stem: unknown_keys(as_axolotl_reads(file), axolotl_fields()) for file in FILES}
    assert {name: sentences for name, sentences in found.items() if sentences} == {}


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Axolotl's verdict on each, and on the configs with which its trained model is loaded. One process reads them all:
    its imports take longer than a hundred configs."""
    folder = lay_out(tmp_path_factory.mktemp("good"))
    files = [f"{name}.yml" for name in NAMES]
    for file in tuple(files):
        for kind, config in _answering(as_axolotl_reads(folder / file)).items():
            files.append(f"{kind}--{file}")
            (folder / files[-1]).write_text(yaml.safe_dump(config))
    done = subprocess.run(
        [trainer_environment.find(), HERE / "verdicts.py", *files],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert len(said["verdicts"]) == len(files)
    return said


def _answering(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The configs with which the trained model is loaded for answers."""
    made = {
        "base": config_to_load(config, adapter=None, weights=None),
        "weights": config_to_load(config, adapter=None, weights=Path(config["base_model"])),
    }
    if config.get("adapter"):
        made["adapter"] = config_to_load(config, adapter=Path("model"), weights=None)
    return made


@pytest.mark.slow
def test_axolotls_schema_accepts_each_and_every_part_of_it_is_used(judged: dict[str, Any]) -> None:
    verdicts = {name: judged["verdicts"][f"{name}.yml"] for name in NAMES}
    assert {name: error for name, error in verdicts.items() if error} == {}
    used = {key for file in FILES for key in as_axolotl_reads(file)}
    assert {part for part, keys in judged["parts"].items() if not used & set(keys)} == set()


@pytest.mark.slow
def test_axolotls_schema_accepts_what_a_model_that_answers_is_loaded_by(judged: dict[str, Any]) -> None:
    verdicts = {name: error for name, error in judged["verdicts"].items() if "--" in name}
    assert len(verdicts) > 2 * len(NAMES)
    assert {name: error for name, error in verdicts.items() if error} == {}


def _kinds(config: Mapping[str, Any]) -> Iterator[object]:
    for dataset in config.get("datasets") or ():
        yield "own" if isinstance(dataset.get("type"), dict) else dataset.get("type")
