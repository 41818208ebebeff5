import json
from pathlib import Path
from typing import Any

import pytest

from runner.config.shipped import shipped_root
from runner.memory.counted_weights import weights_in_folder
from runner.memory.model_facts import facts_from, facts_of
from tests.runner.memory_points import LLAMA_8B

COMMIT = "0123abcd" * 5
SIZES = ("hidden_size", "num_hidden_layers", "intermediate_size")
WRONG: tuple[Any, ...] = (None, "4096", -1, True, 1.5, [], 10**30)
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
    facts = facts_of(str(shipped_root() / "tiny/model")).facts
    assert facts is not None
    # The weights of the file itself: tiny/model/model.safetensors.
    assert facts.parameters == 123_776
    assert (facts.layers, facts.kv_heads, facts.head_dim, facts.tied, facts.context) == (2, 2, 16, True, 256)


def test_a_hub_model_in_the_cache_tells_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert facts_of("someone/llama").problem == "the shape of someone/llama is unknown: it is not on this machine"
    snapshot = tmp_path / "models--someone--llama" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text(json.dumps(LLAMA))
    facts = facts_of("someone/llama").facts
    assert facts is not None
    assert facts.parameters == LLAMA_8B.parameters
    assert facts.base_model == "someone/llama"
    assert facts_of("someone/llama", "v2").facts is None
    (tmp_path / "models--someone--llama" / "refs").mkdir()
    (tmp_path / "models--someone--llama" / "refs" / "v2").write_text(COMMIT)
    snapshot.rename(snapshot.with_name(COMMIT))
    assert facts_of("someone/llama", "v2").facts == facts_of("someone/llama", COMMIT).facts is not None


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        ({**LLAMA, "model_type": "gpt2"}, "the number of weights of its kind (gpt2) is not known"),
        ({**LLAMA, "model_type": ["llama"]}, "the number of weights of its kind"),
        ({**LLAMA, "quantization_config": {"quant_method": "gptq"}}, "quantized with gptq"),
        *(({**LLAMA, name: wrong}, "does not have the usual sizes") for name in SIZES for wrong in WRONG),
        ({"model_type": "llama", "text_config": "none"}, "does not have the usual sizes"),
        ({}, "does not have the usual sizes"),
    ],
)
def test_what_is_not_counted_here_has_no_facts_and_says_why(raw: dict[str, Any], why: str) -> None:
    answer = facts_from(raw, "it", "a test")
    assert answer.facts is None
    assert answer.problem.startswith("the shape of it is unknown: ")
    assert why in answer.problem


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000, b" " * 2_000_000, None])
def test_a_config_that_is_not_a_json_object_has_no_facts(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    answer = facts_of(str(tmp_path))
    assert (answer.facts, answer.problem.startswith(f"the shape of {tmp_path} is unknown: {tmp_path}")) == (None, True)


def test_the_weights_of_another_kind_are_counted_in_their_files(tmp_path: Path) -> None:
    raw = {**LLAMA, "model_type": "strange", "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    for number, shapes in enumerate([[[4096, 1_000_000], [2]], [[5]]]):
        tensors = {f"t{at}": {"dtype": "BF16", "shape": shape} for at, shape in enumerate(shapes)}
        header = json.dumps({"__metadata__": {"format": "pt"}, **tensors}).encode()
        (tmp_path / f"model-{number}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    facts = facts_of(str(tmp_path)).facts
    assert facts is not None
    assert facts.parameters == 4_096_000_007
    assert facts.active_parameters == 4_096_000_007 - 6 * 32 * 3 * 4096 * 100 - 128256 * 4096
    assert facts.unusual == "layers of the kind strange"


@pytest.mark.parametrize("header", [b"[]", b'{"t":[1]}', b'{"t":{"dtype":"BF16","shape":[Infinity]}}'])
def test_a_file_of_weights_with_a_strange_header_counts_nothing(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert weights_in_folder(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"\xff" * 8])
def test_a_file_of_weights_without_a_header_counts_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    assert weights_in_folder(tmp_path) is None


def test_experts_and_images_are_reported() -> None:
    experts = facts_from({**LLAMA, "model_type": "mixtral", "num_local_experts": 8}, "it", "a test").facts
    assert experts is not None
    assert experts.experts == 8
    assert experts.parameters > 5 * LLAMA_8B.parameters
    nested = {"model_type": "gemma3", "text_config": LLAMA, "vision_config": {}}
    images = facts_from(nested, "it", "a test").facts
    assert images is not None
    assert images.vision


def test_gemma_ties_its_embeddings_though_its_config_does_not_say_so() -> None:
    raw = {key: value for key, value in LLAMA.items() if key != "tie_word_embeddings"}
    gemma, llama = (facts_from({**raw, "model_type": kind}, "it", "a test").facts for kind in ("gemma2", "llama"))
    assert gemma is not None
    assert llama is not None
    assert gemma.tied
    assert not llama.tied
