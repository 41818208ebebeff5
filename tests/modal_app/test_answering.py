"""What a model is loaded by when it is to answer: a training's config without the training."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from modal_app.inference.config import asked_of
from runner.environment import trainer_environment
from tests.good_configs.files import HERE, NAMES, lay_out

QLORA = {
    "base_model": "owner/model", "revision_of_model": "c0ffee", "adapter": "qlora", "load_in_4bit": True, "lora_r": 8,
    "peft_init_lora_weights": "pissa", "deepspeed": "zero3.json", "sample_packing": True, "chat_template": "chatml",
    "special_tokens": {"eos_token": "<|im_end|>"}, "lora_model_dir": "owner/first@1",
}  # fmt: skip


def test_an_adapter_is_loaded_on_the_base_model_as_it_was_trained() -> None:
    made = asked_of(QLORA, adapter=Path("../model"), weights=None)
    assert made["lora_model_dir"] == "../model"
    assert (made["adapter"], made["load_in_4bit"], made["revision_of_model"]) == ("qlora", True, "c0ffee")
    assert (made["chat_template"], made["special_tokens"]) == ("chatml", {"eos_token": "<|im_end|>"})
    assert "deepspeed" not in made
    assert made["sample_packing"] is False
    assert made["lora_mlp_kernel"] is False


def test_a_base_model_alone_keeps_how_it_is_quantized_and_nothing_else_of_the_adapter() -> None:
    made = asked_of(QLORA, adapter=None, weights=None)
    assert (made["adapter"], made["load_in_4bit"]) == ("qlora", True)  # Axolotl quantizes below an adapter only
    assert "lora_model_dir" not in made
    assert "peft_init_lora_weights" not in made
    plain = asked_of(QLORA | {"load_in_4bit": False, "adapter": "lora"}, adapter=None, weights=None)
    assert not {"adapter", "lora_r", "peft_init_lora_weights", "lora_model_dir"} & set(plain)


def test_whole_weights_stand_in_the_place_of_the_base_model_and_bring_their_tokenizer() -> None:
    made = asked_of(QLORA | {"tokenizer_config": "owner/tokens"}, adapter=None, weights=Path("../merged"))
    assert made["base_model"] == "../merged"
    assert not {"adapter", "lora_r", "load_in_4bit", "revision_of_model", "tokenizer_config"} & set(made)
    assert made["chat_template"] == "chatml"


@pytest.mark.slow
def test_axolotls_schema_takes_what_is_made_of_every_good_config(tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    files = []
    for name in NAMES:
        config = yaml.safe_load((folder / f"{name}.yml").read_text())
        made = {
            "base": asked_of(config, adapter=None, weights=None),
            "weights": asked_of(config, adapter=None, weights=Path(config["base_model"])),
        }
        if config.get("adapter"):
            made["adapter"] = asked_of(config, adapter=Path("model"), weights=None)
        for kind, asked in made.items():
            files.append(f"{name}--{kind}.yml")
            (folder / files[-1]).write_text(yaml.safe_dump(asked))
    done = subprocess.run(
        [trainer_environment.find(), HERE / "verdicts.py", *files],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verdicts = json.loads(done.stdout.splitlines()[-1])["verdicts"]
    assert len(verdicts) == len(files) > 2 * len(NAMES)
    assert {name: error for name, error in verdicts.items() if error} == {}
