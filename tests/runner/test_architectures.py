"""The list of architectures: which names of modules a model has, as the locked transformers builds it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from runner.config.architectures import architecture, with_numbers
from runner.config.known_names import class_named
from runner.environment import trainer_environment
from tests.modal_app.steps import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
SOME = ("deepseek_v3", "gemma3", "gpt2", "granitemoehybrid", "llama", "mixtral", "phi3")


def test_an_architecture_is_found_by_its_type_and_by_its_class() -> None:
    assert architecture("llama") == architecture("LlamaForCausalLM")
    assert architecture("Qwen2ForCausalLM") == architecture("qwen2")
    assert architecture("AutoModelForCausalLM") is None
    assert architecture("") is None


def test_what_only_some_configs_of_an_architecture_have_is_listed() -> None:
    found = architecture("deepseek_v3")
    assert found is not None
    assert {f"model.layers.#.self_attn.{name}" for name in ("q_proj", "q_a_proj", "q_b_proj")} <= set(found.linear)


def test_layers_that_only_the_defaults_of_an_architecture_lack_are_listed() -> None:
    found = architecture(
        "granitemoehybrid"
    )  # Granite 4 has attention in some or all layers; transformers' default has none
    assert found is not None
    assert {"model.layers.#.self_attn.q_proj", "model.layers.#.mamba.in_proj"} <= set(found.linear)


def test_a_model_whose_parts_may_be_of_any_architecture_is_not_listed() -> None:
    assert architecture("llava") is None
    assert architecture("mistral3") is None


def test_modules_include_those_around_the_parameters() -> None:
    found = architecture("llama")
    assert found is not None
    assert {"model", "model.embed_tokens", "model.layers.#.mlp", "model.norm", "lm_head"} <= set(found.modules)


def test_numbers_take_the_place_of_their_marks() -> None:
    assert list(with_numbers("layers.#.experts.#", 2, 1)) == ["layers.0.experts.0", "layers.1.experts.0"]
    assert list(with_numbers("lm_head", 2)) == ["lm_head"]


def test_the_class_of_every_shipped_model_is_known_and_listed() -> None:
    assert class_named("NousResearch/Meta-Llama-3-8B-Instruct") == "LlamaForCausalLM"
    assert class_named("nousresearch/meta-llama-3-8b-instruct") == "LlamaForCausalLM"
    assert class_named("nobody/nothing") is None


@pytest.mark.slow
def test_the_names_are_those_of_the_locked_transformers(tmp_path: Path) -> None:
    """Renew them with `make fields`."""
    listed = tmp_path / "architectures.json"
    subprocess.run(
        [trainer_environment.find(), ROOT / "modal_app" / "trainer" / "list_modules.py", listed, *SOME],
        env=ENVIRONMENT,
        check=True,
        capture_output=True,
    )
    renewed = {name: raw for raw in json.loads(listed.read_text()) for name in raw["model_types"]}
    assert sorted(renewed) == sorted(SOME)
    for name, raw in renewed.items():
        found = architecture(name)
        assert found is not None
        assert (list(found.linear), list(found.parameters)) == (raw["linear"], raw["parameters"]), name
