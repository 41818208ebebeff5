import json
from pathlib import Path
from typing import Any

import pytest

from runner.config.shipped import shipped_root
from runner.memory.model_facts import facts_from, facts_of
from tests.runner.memory_points import LLAMA_8B

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}


def test_a_local_folder_tells_its_shape() -> None:
    facts = facts_of(str(shipped_root() / "tiny/model"))
    assert facts is not None
    # The weights of the file itself: tiny/model/model.safetensors.
    assert facts.parameters == 123_776
    assert (facts.layers, facts.kv_heads, facts.head_dim, facts.tied, facts.context) == (2, 2, 16, True, 256)


def test_a_hub_model_in_the_cache_tells_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert facts_of("someone/llama") is None
    snapshot = tmp_path / "models--someone--llama" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    facts = facts_of("someone/llama")
    assert facts is not None
    assert facts.parameters == LLAMA_8B.parameters
    assert facts.base_model == "someone/llama"


@pytest.mark.parametrize(
    "raw",
    [
        {**LLAMA, "model_type": "gpt2"},
        {key: value for key, value in LLAMA.items() if key != "hidden_size"},
        {**LLAMA, "quantization_config": {"quant_method": "gptq"}},
    ],
)
def test_what_is_not_counted_here_has_no_facts(raw: dict[str, Any]) -> None:
    assert facts_from(raw, "it", "a test") is None


def test_a_config_that_is_no_json_has_no_facts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    assert facts_of(str(tmp_path)) is None
    assert facts_of("") is None


def test_experts_and_images_are_told() -> None:
    experts = facts_from({**LLAMA, "model_type": "mixtral", "num_local_experts": 8}, "it", "a test")
    assert experts is not None
    assert experts.experts == 8
    assert experts.parameters > 5 * LLAMA_8B.parameters
    nested = {"model_type": "gemma3", "text_config": LLAMA, "vision_config": {}}
    images = facts_from(nested, "it", "a test")
    assert images is not None
    assert images.vision


def test_gemma_ties_its_embeddings_though_its_config_does_not_say_so() -> None:
    raw = {key: value for key, value in LLAMA.items() if key != "tie_word_embeddings"}
    gemma, llama = (facts_from({**raw, "model_type": kind}, "it", "a test") for kind in ("gemma2", "llama"))
    assert gemma is not None
    assert llama is not None
    assert gemma.tied
    assert not llama.tied
