"""Every file of conf/ and sweeps/ composes, and the tutorial's config comes out as it was written by hand."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner import trainer_environment
from runner.vocabulary import SWEEPS, read_vocabulary

VOCABULARY = read_vocabulary()
OPTIONS = [(group, option) for group, options in VOCABULARY.groups.items() if group != SWEEPS for option in options]
CONF = Path(__file__).resolve().parents[2] / "conf"

TUTORIAL = {
    "base_model": "NousResearch/Meta-Llama-3-8B-Instruct",
    "model_type": "LlamaForCausalLM",
    "tokenizer_type": "AutoTokenizer",
    "load_in_8bit": True,
    "load_in_4bit": False,
    "chat_template": "llama3",
    "datasets": [{"path": "fozziethebeat/alpaca_messages_2k_test", "type": "chat_template"}],
    "val_set_size": 0.05,
    "sequence_len": 4096,
    "sample_packing": False,
    "adapter": "lora",
    "lora_r": 32,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_linear": True,
    "gradient_accumulation_steps": 4,
    "micro_batch_size": 8,
    "num_epochs": 4,
    "optimizer": "adamw_bnb_8bit",
    "lr_scheduler": "cosine",
    "learning_rate": 0.0002,
    "bf16": "auto",
    "tf32": False,
    "gradient_checkpointing": True,
    "logging_steps": 1,
    "attn_implementation": "flash_attention_2",  # flash_attention: true before Axolotl 0.21
    "warmup_ratio": 0.1,
    "evals_per_epoch": 4,
    "saves_per_epoch": 4,
    "weight_decay": 0.0,
    "special_tokens": {"pad_token": "<|end_of_text|>"},
    "seed": 42,
}


def _asking_for(group: str, option: str) -> list[str]:
    """The option, with what it needs around it."""
    needs = {"deepspeed": ["gpu=h100"], "dataset": ["data.path=mine.jsonl"] if option == "local" else []}
    return [f"{group}={option}", *needs.get(group, [])]


@pytest.mark.parametrize("group", [group for group in VOCABULARY.groups if group != SWEEPS])
def test_every_option_of_a_group_composes(ask: Callable[..., Any], group: str) -> None:
    options = VOCABULARY.groups[group]
    around = sorted({word for option in options for word in _asking_for(group, option)[1:]})
    if group == "dataset":
        options, around = [option for option in options if option != "local"], []
    assert len(ask("-m", f"{group}={','.join(options)}", *around).experiments) == len(options)


@pytest.mark.parametrize("sweep", VOCABULARY.groups[SWEEPS])
def test_every_sweep_file_composes_to_several_runs(ask: Callable[..., Any], sweep: str) -> None:
    assert len(ask("-m", f"+sweeps={sweep}").experiments) > 1


@pytest.mark.parametrize("sweep", VOCABULARY.groups[SWEEPS])
def test_every_sweep_file_opens_with_the_command_that_asks_it(sweep: str) -> None:
    text = (CONF.parent / "sweeps" / f"{sweep}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# @package _global_\n")
    assert f"axosweep -m +sweeps={sweep}" in text
    assert "mode:" not in text


def test_the_tutorials_config_composes(ask: Callable[..., Any]) -> None:
    (experiment,) = ask("experiment=llama3_8b_alpaca").experiments
    assert experiment.axolotl == TUTORIAL
    assert experiment.gpu.type == "a100_80gb"


def test_a_gpu_changes_nothing_of_what_a_run_is(ask: Callable[..., Any]) -> None:
    """Only gpu=cpu does, in sight: what it takes away is part of the run's identity."""
    gpus = [gpu for gpu in VOCABULARY.groups["gpu"] if gpu != "cpu"]
    asked = ask("-m", "gpu=" + ",".join(gpus))
    assert all(experiment.axolotl == asked.experiments[0].axolotl for experiment in asked.experiments)
    assert {experiment.gpu.type for experiment in asked.experiments} == set(gpus)


def test_a_cpu_takes_away_whatever_a_group_asked_for(ask: Callable[..., Any]) -> None:
    (experiment,) = ask("model=llama3_8b", "training=fast", "gpu=cpu").experiments
    assert experiment.axolotl["bf16"] is False
    assert experiment.axolotl["attn_implementation"] == "sdpa"
    assert experiment.axolotl["optimizer"] == "adamw_torch"


@pytest.mark.parametrize("rank", ["r4", "r8", "r16", "r32", "r64"])
def test_changing_the_rank_does_not_change_the_updates_scale(ask: Callable[..., Any], rank: str) -> None:
    (experiment,) = ask(f"lora={rank}").experiments
    assert f"r{experiment.axolotl['lora_r']}" == rank
    assert experiment.axolotl["lora_alpha"] == 2 * experiment.axolotl["lora_r"]


def test_a_config_file_resolves_only_what_may_differ_between_machines() -> None:
    """An interpolation elsewhere would make a run depend on where and how it runs."""
    allowed = ("${shipped:", "${data.path}", "${oc.env:AXOSWEEP_STORE,out}", "${now:")
    for file in CONF.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        for one in allowed:
            text = text.replace(one, "")
        assert "${" not in text, file


@pytest.mark.slow
def test_axolotl_accepts_every_shipped_choice_on_a100s(ask: Callable[..., Any]) -> None:
    models = [model for model in VOCABULARY.groups["model"] if model != "tiny"]
    lines = [["experiment=llama3_8b_alpaca"]]
    lines += [[f"model={model}", "dataset=alpaca_messages_2k"] for model in models]
    lines += [_asking_for(group, option) for group, option in OPTIONS if group in ("lora", "training", "deepspeed")]
    experiments = [ask(*line, *_gpu(line)).experiments[0] for line in lines]
    verdicts = _verdicts([dict(experiment.axolotl) for experiment in experiments])
    assert {" ".join(line): said for line, said in zip(lines, verdicts, strict=True) if said} == {}


def _gpu(line: list[str]) -> list[str]:
    return [] if any(word.startswith(("experiment=", "gpu=")) for word in line) else ["gpu=a100_80gb"]


def _verdicts(configs: list[dict[str, Any]]) -> list[str | None]:
    done = subprocess.run(
        [trainer_environment.find(), Path(__file__).with_name("verdicts.py")],
        input=json.dumps(configs),
        env={**os.environ, "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    verdicts: list[str | None] = json.loads(done.stdout.splitlines()[-1])
    return verdicts
