"""The config that loads a model for answers: the config of the training, without what concerns training. The tests of
the good configs check that Axolotl's schema accepts them."""

from __future__ import annotations

from pathlib import Path

from modal_app.inference.config import config_to_load

QLORA = {
    "base_model": "owner/model", "revision_of_model": "c0ffee", "adapter": "qlora", "load_in_4bit": True, "lora_r": 8,
    "peft_init_lora_weights": "pissa", "deepspeed": "zero3.json", "sample_packing": True, "chat_template": "chatml",
    "special_tokens": {"eos_token": "<|im_end|>"}, "lora_model_dir": "owner/first@1",
}  # fmt: skip


def test_an_adapter_is_loaded_on_the_base_model_as_it_was_trained() -> None:
    made = config_to_load(QLORA, adapter=Path("../model"), weights=None)
    assert made["lora_model_dir"] == "../model"
    assert (made["adapter"], made["load_in_4bit"], made["revision_of_model"]) == ("qlora", True, "c0ffee")
    assert (made["chat_template"], made["special_tokens"]) == ("chatml", {"eos_token": "<|im_end|>"})
    assert "deepspeed" not in made
    assert made["sample_packing"] is False
    assert made["lora_mlp_kernel"] is False


def test_a_base_model_alone_keeps_its_quantization_and_nothing_else_of_the_adapter() -> None:
    made = config_to_load(QLORA, adapter=None, weights=None)
    assert (made["adapter"], made["load_in_4bit"]) == ("qlora", True)  # Axolotl quantizes below an adapter only
    assert "lora_model_dir" not in made
    assert "peft_init_lora_weights" not in made
    plain = config_to_load(QLORA | {"load_in_4bit": False, "adapter": "lora"}, adapter=None, weights=None)
    assert not {"adapter", "lora_r", "peft_init_lora_weights", "lora_model_dir"} & set(plain)


def test_complete_weights_replace_the_base_model_and_bring_their_tokenizer() -> None:
    made = config_to_load(QLORA | {"tokenizer_config": "owner/tokens"}, adapter=None, weights=Path("../merged"))
    assert made["base_model"] == "../merged"
    assert not {"adapter", "lora_r", "load_in_4bit", "revision_of_model", "tokenizer_config"} & set(made)
    assert made["chat_template"] == "chatml"
