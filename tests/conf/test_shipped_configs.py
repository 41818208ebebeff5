"""Every file of conf/ and sweeps/ composes, and the tutorial's config comes out as it was written by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.config.gpus import GPUS
from runner.config.project import SWEEPS
from runner.config.vocabulary import read_vocabulary
from runner.errors import SweepError
from runner.request import SearchMethod
from tests.conftest import refuse

VOCABULARY = read_vocabulary()
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


OWN_FILES = [option for option in VOCABULARY.groups["dataset"] if option.startswith("local")]
NEEDS_GPUS = ("deepspeed", "fsdp")
ADAPTERS = [option for option in VOCABULARY.groups["lora"] if option != "none"]
ALPHA: dict[str, Callable[[int], int]] = {
    "double": lambda rank: 2 * rank,
    "fixed": lambda _: 32,
    "sqrt": lambda rank: round(8 * math.sqrt(rank)),
}


@pytest.mark.medium
@pytest.mark.parametrize("group", [group for group in VOCABULARY.groups if group not in (SWEEPS, "search")])
def test_every_option_of_a_group_composes(ask: Callable[..., Any], group: str) -> None:
    options = [option for option in VOCABULARY.groups[group] if option not in OWN_FILES]
    around = ["gpu=h100"] if group in NEEDS_GPUS else []
    assert len(ask("-m", f"{group}={','.join(options)}", *around).experiments) == len(options)


def test_each_way_to_search_is_an_option(ask: Callable[..., Any]) -> None:
    assert set(VOCABULARY.groups["search"]) == set(SearchMethod)
    for option, words in (("grid", ["lora=r8,r16"]), ("random", ["learning_rate=interval(1,2)", "search.runs=2"])):
        requested = ask("-m", f"search={option}", *words)
        assert (requested.request.search.method, len(requested.experiments)) == (option, 2)


def test_a_users_file_may_contain_chats_sharegpt_instructions_or_text(ask: Callable[..., Any]) -> None:
    requested = ask("-m", f"dataset={','.join(OWN_FILES)}", "data.path=mine.jsonl")
    found = {one.overrides[0].removeprefix("dataset="): one.axolotl["datasets"] for one in requested.experiments}
    assert all(dataset["path"] == "mine.jsonl" for (dataset,) in found.values())
    kinds = {option: dataset["type"] for option, (dataset,) in found.items()}
    assert kinds == {
        "local": "chat_template",
        "local_sharegpt": "chat_template",  # Axolotl 0.21 refuses a type of that name
        "local_alpaca": "alpaca",
        "local_text": "completion",
    }
    assert found["local_sharegpt"][0]["message_property_mappings"] == {"role": "from", "content": "value"}


@pytest.mark.parametrize("dataset", OWN_FILES)
def test_a_users_file_has_to_be_named(ask: Callable[..., Any], dataset: str) -> None:
    with pytest.raises(SweepError, match=r"needs data\.path=FILE"):
        refuse(ask(f"dataset={dataset}").experiments)


def test_a_limit_counts_rows_of_each_dataset_of_a_mix(ask: Callable[..., Any]) -> None:
    (experiment,) = ask("dataset=mix", "data.limit=7").experiments
    datasets = experiment.axolotl["datasets"]
    assert [dataset["type"] for dataset in datasets] == ["chat_template", "alpaca", "completion"]
    assert all(dataset["split"] == "train[:7]" for dataset in datasets)


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
    """Only gpu=cpu and gpu=t4 change these keys, visibly: the removed keys are part of the run's identity."""
    gpus = [gpu for gpu in VOCABULARY.groups["gpu"] if gpu not in ("auto", "cpu", "t4")]
    requested = ask("-m", "gpu=" + ",".join(gpus))
    assert all(experiment.axolotl == requested.experiments[0].axolotl for experiment in requested.experiments)
    assert {experiment.gpu.type for experiment in requested.experiments} == set(gpus)


def test_every_gpu_of_the_table_can_be_requested() -> None:
    assert set(VOCABULARY.groups["gpu"]) == {*GPUS, "auto", "cpu"}


@pytest.mark.parametrize("training", VOCABULARY.groups["training"])
def test_a_cpu_removes_whatever_a_group_has_set(ask: Callable[..., Any], training: str) -> None:
    (experiment,) = ask("model=llama3_8b", f"training={training}", "gpu=cpu").experiments
    assert experiment.axolotl["bf16"] is False
    assert experiment.axolotl["attn_implementation"] == "sdpa"
    assert experiment.axolotl["optimizer"] == "adamw_torch"


@pytest.mark.parametrize("training", VOCABULARY.groups["training"])
def test_a_t4_gets_fp16_and_no_flash_attention(ask: Callable[..., Any], training: str) -> None:
    (experiment,) = ask("model=llama3_2_1b", f"training={training}", "gpu=t4").experiments
    assert (experiment.axolotl["bf16"], experiment.axolotl["fp16"], experiment.axolotl["tf32"]) == (False, True, False)
    assert experiment.axolotl["attn_implementation"] == "sdpa"


def test_every_choice_of_adapter_multiplies_its_update_by_two(ask: Callable[..., Any]) -> None:
    """LoRA multiplies its update by alpha / r, rsLoRA by alpha / sqrt(r)."""
    for experiment in ask("-m", f"lora={','.join(ADAPTERS)}", "gpu=h100").experiments:
        said, config = experiment.overrides[0].removeprefix("lora="), experiment.axolotl
        rank = math.sqrt(config["lora_r"]) if config.get("peft_use_rslora") else config["lora_r"]
        assert config["lora_alpha"] / rank == 2, said
        assert said == f"r{config['lora_r']}" or not said[1:].isdecimal()


@pytest.mark.parametrize("rule", VOCABULARY.groups["alpha"])
def test_a_rule_for_alpha_reads_the_rank_wherever_that_is_set(
    ask: Callable[..., Any], tmp_path: Path, rule: str
) -> None:
    base = tmp_path / "base.yml"
    base.write_text("base_model: m\nadapter: lora\nlora_r: 40\nlora_alpha: 1\n")
    lines = [
        [f"lora={','.join(ADAPTERS)}", "gpu=h100"],
        ["lora_r=3,100"],
        ["lora=r8,dora", "lora_r=5"],
        ["experiment=llama3_8b_alpaca"],  # sets lora_alpha itself
        [f"base={base}", "gpu=cpu"],
    ]
    for line in lines:
        for experiment in ask("-m", f"alpha={rule}", *line).experiments:
            rank, alpha = experiment.axolotl["lora_r"], experiment.axolotl["lora_alpha"]
            assert (alpha, type(alpha)) == (ALPHA[rule](rank), int), experiment.overrides
    (directly,) = ask(f"alpha={rule}", "lora_alpha=7").experiments
    assert directly.axolotl["lora_alpha"] == 7


def test_the_rules_for_alpha_agree_at_rank_16_and_one_of_them_is_that_of_the_adapters(ask: Callable[..., Any]) -> None:
    """So a sweep over rules trains shared runs only once, and finds runs that were trained without a rule."""
    (without,) = ask("lora=r16").experiments
    for experiment in ask("-m", f"alpha={','.join(ALPHA)}", "lora=r16").experiments:
        assert experiment.axolotl == without.axolotl
    (eight,), (doubled,) = ask("lora=r8").experiments, ask("lora=r8", "alpha=double").experiments
    assert doubled.axolotl == eight.axolotl


def test_a_rule_for_alpha_without_an_adapter_says_what_is_missing(ask: Callable[..., Any]) -> None:
    with pytest.raises(SweepError, match=r"lora_alpha cannot be resolved: .*'lora_r' not found\. Set that key, or"):
        ask("lora=none", "alpha=double")


@pytest.mark.parametrize("rank", ["big", "-4", "null"])
def test_a_rank_that_is_none_is_named_and_not_the_rule_that_reads_it(ask: Callable[..., Any], rank: str) -> None:
    with pytest.raises(SweepError, match=rf"- lora_r={rank}: "):
        refuse(ask(f"lora_r={rank}", "alpha=sqrt").experiments)


@pytest.mark.parametrize("group", NEEDS_GPUS)
def test_sharding_brings_an_optimizer_that_runs_where_its_state_lies(ask: Callable[..., Any], group: str) -> None:
    for experiment in ask("-m", f"{group}={','.join(VOCABULARY.groups[group])}", "gpu=h100").experiments:
        said, optimizer = experiment.overrides[0], experiment.axolotl["optimizer"]
        if "offload" in said:
            assert optimizer == "adamw_torch", said
        elif said == "fsdp=fsdp2":
            assert "bnb" not in optimizer, said


def test_deepspeed_and_fsdp_at_once_are_refused_with_one_message(ask: Callable[..., Any]) -> None:
    with pytest.raises(SweepError, match=r"deepspeed=none, or fsdp=none") as refused:
        refuse(ask("deepspeed=zero3", "fsdp=fsdp2", "gpu=h100", "gpu.count=8").experiments)
    assert str(refused.value).count("\n- ") == 1


@pytest.mark.parametrize(("group", "option"), [("deepspeed", "zero3_offload"), ("fsdp", "fsdp2_offload")])
def test_sharding_on_a_cpu_is_refused_with_the_group_that_has_set_it(
    ask: Callable[..., Any], group: str, option: str
) -> None:
    with pytest.raises(SweepError, match=f"{group}=none") as refused:
        refuse(ask(f"{group}={option}").experiments)
    assert str(refused.value).count("\n- ") == 1


def test_a_config_file_resolves_only_what_may_differ_between_machines() -> None:
    """An interpolation elsewhere would make a run depend on where and how it runs. A rule for alpha reads the run."""
    rules = ("${times:2,${.lora_r}}", "${times_sqrt:8,${.lora_r}}")
    allowed = (*rules, "${shipped:", "${data.path}", "${oc.env:AXOSWEEP_STORE,out}", "${now:", "${for_gpu:${gpu.type},")
    for file in CONF.rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        for one in allowed:
            text = text.replace(one, "")
        assert "${" not in text, file
