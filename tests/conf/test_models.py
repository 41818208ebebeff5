"""Each model file agrees with itself: its shape has the stated number of weights, and its facts are those of its
base_model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.read_yaml import read_yaml

MODELS = sorted((Path(__file__).resolve().parents[2] / "conf" / "model").glob("*.yaml"))
FAMILIES = (
    "llama3 llama4 mistral mistral_small ministral3 mixtral qwen2_5 qwen3_ qwen3_5 gemma2 gemma3 gemma4 phi gpt_oss "
    "glm4_7 olmo3 granite4 smollm3 tiny"
).split()


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(file)
    return content


def weights(facts: dict[str, Any]) -> int:
    """The matrices of a decoder of this shape; norms and biases are a thousandth of it."""
    q, kv = facts["heads"] * facts["head_dim"], facts["kv_heads"] * facts["head_dim"]
    experts = facts.get("experts") or 1
    attention = 2 * facts["hidden"] * (q + kv)
    mlp = 3 * facts["hidden"] * facts["ffn"] * experts
    embeddings = facts["vocabulary"] * facts["hidden"] * (1 if facts["tied"] else 2)
    return int(facts["layers"] * (attention + mlp) + embeddings)


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_a_models_shape_has_the_weights_that_its_publisher_counts(file: Path) -> None:
    facts = _read(file)["model"]
    if facts.get("unusual"):  # no formula: these weights were counted by transformers on its meta device
        assert weights(facts) < 1.5 * facts["parameters"]
    elif facts.get("vision"):
        # SigLIP or Pixtral, with the projector
        assert facts["parameters"] - weights(facts) == pytest.approx(420e6, rel=0.05)
    else:
        assert weights(facts) == pytest.approx(facts["parameters"], rel=0.003)


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_a_models_facts_are_of_its_own_base_model_and_say_their_source(file: Path) -> None:
    content = _read(file)
    assert set(content) == {"axolotl", "model"}
    assert content["model"]["base_model"] == content["axolotl"]["base_model"]
    assert content["model"]["source"].startswith("https://") or file.stem == "tiny"
    assert (content["model"].get("experts") is None) == (content["model"].get("active_experts") is None)


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_a_model_says_how_to_talk_to_it_and_what_to_pad_with(file: Path) -> None:
    axolotl = _read(file)["axolotl"]
    if axolotl.get("tokenizer_use_mistral_common"):  # mistral-common has both, so Axolotl refuses them
        assert not {"chat_template", "special_tokens"} & set(axolotl)
        return
    assert axolotl["chat_template"]
    assert file.stem == "tiny" or axolotl["special_tokens"]["pad_token"]


def test_every_family_is_there() -> None:
    assert {family for family in FAMILIES for file in MODELS if file.stem.startswith(family)} == set(FAMILIES)


def test_no_name_is_of_two_files() -> None:
    """llama3_1_405b and its 4-bit copy are different names, so each has a file."""
    names = [name.lower() for file in MODELS for name in _names(_read(file)["model"])]
    assert sorted(names) == sorted(set(names))


def _names(facts: dict[str, Any]) -> list[str]:
    return [facts["base_model"], *facts.get("same_shape", ())]


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.stem)
def test_a_token_is_multiplied_with_a_part_of_a_model(file: Path) -> None:
    facts = _read(file)["model"]
    active = facts.get("active_parameters")
    if facts.get("unusual") and (facts.get("experts") or facts.get("vision")):
        assert active
    if active and facts.get("experts"):
        idle = facts["layers"] * 3 * facts["hidden"] * facts["ffn"] * (facts["experts"] - facts["active_experts"])
        assert facts["parameters"] - active == pytest.approx(idle, rel=0.2)  # and the weights that are only looked up
    elif active:
        assert 0.4 < active / facts["parameters"] < 1
