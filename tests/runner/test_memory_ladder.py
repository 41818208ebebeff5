import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from runner.config.gpus import GPUS
from runner.errors import SweepError
from runner.memory.estimate import Verdict, estimate
from runner.memory.ladder import ZERO3, CurrentSettings, ways_out, ways_to_load
from runner.memory.sharding import sharding_of
from runner.types import Experiment
from tests.runner.composed_jobs import composed_jobs
from tests.runner.memory_points import LLAMA_8B, LLAMA_70B
from tests.runner.test_memory import FULL, LORA

Compose = Callable[[str], Experiment]


@pytest.fixture(scope="module")
def composed() -> Iterator[Compose]:
    with composed_jobs() as composed:
        yield lambda line: composed(*line.split())


def asked(config: dict[str, Any], facts: Any, gpu: str, count: int = 1) -> CurrentSettings:
    return CurrentSettings(config, facts, GPUS[gpu], count)


TOO_LARGE = [
    "model=llama3_70b lora=r16 gpu=a100_80gb",
    "model=llama3_8b lora=none gpu=a100_80gb",
    "model=llama3_8b lora=r16 gpu=l4",
    "model=llama3_8b lora=lora_8bit gpu=a10",
    "model=qwen2_5_72b lora=qlora gpu=h100",
    "model=llama3_70b lora=none gpu=h100 gpu.count=8 deepspeed=zero3",
    "model=llama3_8b lora=none gpu=h100 gpu.count=4",
    "model=llama3_1_8b lora=r16 gpu=l40s fsdp=fsdp2 gpu.count=2",
    "model=qwen2_5_7b lora=r64 gpu=a100_40gb gradient_checkpointing=false",
]


@pytest.mark.parametrize("line", TOO_LARGE)
def test_every_way_out_fits_when_it_is_composed_and_estimated_again(composed: Compose, line: str) -> None:
    base = f"{line} training=default micro_batch_size=8 gradient_accumulation_steps=4"
    run = composed(base)
    assert estimate(run.axolotl, run.model, GPUS[run.gpu.type], run.gpu.count).verdict is Verdict.WONT_FIT
    assert run.model is not None
    ways = ways_out(CurrentSettings(run.axolotl, run.model, GPUS[run.gpu.type], run.gpu.count))
    assert ways.lines
    for way in ways.lines:
        changed = composed(_with(base, way))
        found = estimate(changed.axolotl, changed.model, GPUS[changed.gpu.type], changed.gpu.count)
        assert found.verdict is ways.verdict, way


def _with(base: str, way: str) -> str:
    """The command line with the overrides of `way`, which replace those of the same key."""
    keys = {word.partition("=")[0] for word in way.split()}
    return " ".join([*(word for word in base.split() if word.partition("=")[0] not in keys), way])


def test_the_effective_batch_stays_the_same() -> None:
    for way in ways_out(asked({**LORA, "micro_batch_size": 12}, LLAMA_8B, "l4")).lines:
        if found := re.search(r"micro_batch_size=(\d+) gradient_accumulation_steps=(\d+)", way):
            assert int(found[1]) * int(found[2]) == 12 * LORA["gradient_accumulation_steps"]


def test_the_cheapest_way_comes_first_and_asks_for_no_more_than_it_has_to() -> None:
    config = {**LORA, "sequence_len": 4096, "micro_batch_size": 8}
    first = ways_out(asked(config, LLAMA_8B, "a100_80gb")).lines[0]
    assert first == "micro_batch_size=4 gradient_accumulation_steps=8"
    unchecked = {**LORA, "sequence_len": 4096, "micro_batch_size": 1, "gradient_checkpointing": False}
    assert ways_out(asked(unchecked, LLAMA_8B, "l40s")).lines[0] == "gradient_checkpointing=true"


def test_quantizing_comes_before_renting_more() -> None:
    lines = ways_out(asked({**LORA, "micro_batch_size": 1}, LLAMA_70B, "a100_80gb")).lines
    assert lines[0] == "adapter=qlora load_in_4bit=true"
    assert lines[1] == "gpu.count=4 deepspeed=zero3"


def test_8_bit_is_taken_back_where_4_bit_is_proposed() -> None:
    lines = ways_out(asked({**LORA, "load_in_8bit": True, "micro_batch_size": 1}, LLAMA_70B, "a100_80gb")).lines
    assert lines[0] == "adapter=qlora load_in_4bit=true load_in_8bit=false"


def test_a_full_fine_tune_is_not_quantized_and_gets_a_smaller_optimizer_state() -> None:
    lines = ways_out(asked({**FULL, "micro_batch_size": 1}, LLAMA_8B, "a100_80gb")).lines
    assert not any("adapter" in line or "4bit" in line for line in lines)
    assert lines[0] == "optimizer=adamw_bnb_8bit"


def test_where_several_cards_hold_the_same_sharing_comes_before_more_cards() -> None:
    lines = ways_out(asked({**FULL, "optimizer": "adamw_bnb_8bit"}, LLAMA_8B, "a100_80gb", 4)).lines
    assert lines[0].startswith("deepspeed=zero3")


def test_what_nothing_can_make_fit_has_no_way_out() -> None:
    giant = replace(LLAMA_70B, parameters=4_000_000_000_000)
    assert ways_out(asked(FULL, giant, "h100", 8)).lines == ()


def test_the_zero3_of_the_ladder_shares_what_the_shipped_one_does(composed: Compose) -> None:
    shipped = composed("model=llama3_8b gpu=h100 gpu.count=2 deepspeed=zero3").axolotl
    assert sharding_of({"deepspeed": ZERO3}, 2) == sharding_of(shipped, 2)


@pytest.mark.parametrize(
    "line",
    [
        "model=mixtral_8x7b lora=r16 gpu=a100_80gb",
        "model=qwen3_30b_a3b lora=qlora gpu=l40s",
        "model=gemma4_31b lora=r16 gpu=l40s",
    ],
)
def test_every_way_to_load_weights_that_do_not_fit_is_enough_when_it_is_composed(composed: Compose, line: str) -> None:
    run = composed(line)
    assert run.model is not None
    ways = ways_to_load(CurrentSettings(run.axolotl, run.model, GPUS[run.gpu.type], run.gpu.count))
    assert len(ways) == 3, ways
    for way in ways:
        changed = composed(f"{line} {way}")
        one = estimate(changed.axolotl, changed.model, GPUS[changed.gpu.type], changed.gpu.count)
        assert one.verdict is Verdict.UNKNOWN, way


def test_on_oom_is_of_the_run_and_takes_one_word(composed: Compose) -> None:
    assert not composed("lora=r8").heals
    assert composed("on_oom=halve").heals
    assert composed("training=sanity").heals, "a first look"
    assert not composed("training=sanity on_oom=null").heals
    with pytest.raises(SweepError, match="on_oom=half: expected null, or halve to try"):
        composed("on_oom=half")


@pytest.mark.parametrize("changed", [{"peft_use_dora": True}, {"lora_modules_to_save": ["embed_tokens", "lm_head"]}])
def test_four_bits_are_not_proposed_where_axolotl_refuses_to_load_them(changed: dict[str, Any]) -> None:
    loading = {"fsdp_config": {"reshard_after_forward": True, "cpu_ram_efficient_loading": True}}
    lora = {**LORA, **loading, "micro_batch_size": 8}
    assert any("load_in_4bit=true" in line for line in ways_out(asked(lora, LLAMA_70B, "a100_80gb")).lines)
    assert not any("4bit" in line for line in ways_out(asked({**lora, **changed}, LLAMA_70B, "a100_80gb")).lines)
