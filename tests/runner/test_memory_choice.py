from dataclasses import replace
from typing import Any

import pytest

from runner.config.gpus import GPUS
from runner.config.shipped import shipped_root
from runner.errors import SweepError
from runner.memory.choice import PEAK_TFLOPS, choose
from runner.memory.estimate import Verdict
from runner.memory.ladder import ZERO3
from tests.read_yaml import read_yaml
from tests.runner.memory_points import LLAMA_3B, LLAMA_8B, LLAMA_70B, model
from tests.runner.test_memory import FULL, LORA

LLAMA_1B = model(2048, 16, 32, 8, 64, 8192, 128256, tied=True)
RATES: dict[str, float] = read_yaml(shipped_root() / "conf/prices/modal.yaml")["gpu"]
ONE = {"micro_batch_size": 1, "sequence_len": 4096}
QLORA = {"adapter": "qlora", "load_in_4bit": True}
SHORT = {"max_steps": 20, "gradient_accumulation_steps": 1}


@pytest.mark.parametrize(
    ("config", "facts", "cards"),
    [
        ({**LORA, **ONE}, LLAMA_1B, "1 x l4"),
        ({**LORA, **ONE, **SHORT}, LLAMA_1B, "1 x t4"),
        ({**LORA, **ONE, **QLORA, **SHORT}, LLAMA_8B, "1 x l4"),
        ({**LORA, **ONE}, LLAMA_8B, "1 x l40s"),
        ({**LORA, **ONE, "micro_batch_size": 4}, LLAMA_8B, "1 x h100"),
        ({**FULL, **ONE}, LLAMA_3B, "1 x l40s"),
        ({**LORA, **ONE, **QLORA, **SHORT}, LLAMA_70B, "1 x h100"),
        ({**LORA, **ONE, "deepspeed": ZERO3, **SHORT}, LLAMA_70B, "2 x h200"),
        ({**LORA, **ONE, "deepspeed": ZERO3, "num_epochs": 4}, LLAMA_70B, "2 x b200"),
        ({**FULL, **ONE, "deepspeed": ZERO3, "optimizer": "adamw_bnb_8bit"}, LLAMA_70B, "8 x b200"),
    ],
)
def test_the_cheapest_cards_on_which_it_fits_are_chosen(config: dict[str, Any], facts: Any, cards: str) -> None:
    choice = choose(config, facts, RATES)
    assert f"{choice.count} x {choice.gpu}" == cards
    assert choice.estimate.verdict is Verdict.FITS
    assert choice.reason.startswith(f"gpu=auto: {cards} FITS; compared by a rough price for ")


def test_the_reason_has_the_price_and_the_next_best() -> None:
    reason = choose({**LORA, **ONE}, LLAMA_8B, RATES).reason
    assert "; compared by a rough price for 1,000,000 tokens an epoch, without checkpoints: $0." in reason
    assert ", next 1 x " in reason


def test_each_card_has_its_own_batch_in_every_step() -> None:
    steps = {**LORA, **ONE, "max_steps": 10_000}
    one, four = (
        float(choose(steps, LLAMA_8B, RATES, count=cards).reason.split("$")[1].split(",")[0]) for cards in (1, 4)
    )
    assert four == pytest.approx(4 * one, rel=0.01)


def test_a_price_changes_the_choice() -> None:
    assert choose({**LORA, **ONE}, LLAMA_8B, {**RATES, "l40s": 1.0}).gpu != "l40s"


def test_a_card_that_cannot_run_the_config_is_not_chosen() -> None:
    config = {**LORA, **ONE, **SHORT}
    assert choose(config, LLAMA_1B, RATES, able=lambda kind: kind.bf16).gpu == "l4"


def test_a_clear_fit_is_preferred_to_a_cheaper_unsure_one_and_an_unsure_one_says_so() -> None:
    unsure = {**LORA, **ONE, "micro_batch_size": 4}
    cards = {name: RATES[name] for name in ("l4", "l40s")}
    sure = choose(unsure, LLAMA_8B, cards)
    assert sure.estimate.verdict is Verdict.UNSURE
    assert "no card is a clear fit" in sure.reason
    assert choose(unsure, LLAMA_8B, {**cards, "a100_80gb": 1.0}).gpu == "a100_80gb"


def test_a_requested_number_of_cards_is_not_changed() -> None:
    assert choose({**LORA, **ONE}, LLAMA_8B, RATES, count=4).count == 4


def test_where_nothing_fits_the_nearest_is_named_with_a_way_out() -> None:
    with pytest.raises(
        SweepError, match=r"no card has enough memory. The one that comes closest, 1 x b200: WON'T FIT.*It would fit"
    ):
        choose({**LORA, **ONE, "micro_batch_size": 8}, LLAMA_70B, RATES)


def test_what_cannot_be_estimated_cannot_be_chosen_for() -> None:
    with pytest.raises(SweepError, match="context parallelism"):
        choose({**LORA, "context_parallel_size": 2}, LLAMA_8B, RATES)
    with pytest.raises(SweepError, match="the shape of this base_model is unknown"):
        choose(LORA, None, RATES)


@pytest.mark.parametrize(
    ("config", "billions", "named"),
    [
        (LORA, 4, "7.5 GiB, and gpu=l4 gpu.count=1 has 22."),
        (LORA, 35, "65 GiB, and gpu=h200 gpu.count=1 has 138."),
        ({**LORA, **QLORA}, 35, "16 GiB, and gpu=l40s gpu.count=1 has 44."),
        (FULL, 4, "7.5 GiB (a full fine-tune needs several times that), and gpu=l40s gpu.count=1 has 44."),
        ({**LORA, "fsdp_config": {"offload_params": False}}, 70, "130 GiB, and gpu=h200 gpu.count=2 has 138 each."),
    ],
)
def test_where_the_memory_is_not_estimated_cards_with_room_for_the_weights_are_named(
    config: dict[str, Any], billions: int, named: str
) -> None:
    unusual = replace(LLAMA_8B, parameters=billions * 10**9, unusual="linear attention")
    with pytest.raises(SweepError) as refused:
        choose({**config, **ONE}, unusual, RATES, able=lambda kind: kind.bf16)
    assert str(refused.value) == (
        "gpu=auto: the memory of a model with linear attention is not estimated, so no GPU can be chosen. "
        f"Name one: its weights alone take {named}"
    )


def test_where_not_even_the_weights_fit_four_bits_or_sharing_are_named() -> None:
    experts = replace(LLAMA_8B, parameters=110 * 10**9, experts=16)
    with pytest.raises(SweepError, match=r": lora=qlora_moe gpu=h200 gpu.count=1 or fsdp=fsdp2 gpu=h200 gpu.coun"):
        choose({**LORA, **ONE}, experts, RATES)
    with pytest.raises(SweepError, match=r"is not estimated: fsdp=fsdp2 gpu=h200 gpu.count=8\.$"):
        choose({**FULL, **ONE}, experts, RATES)


def test_cards_that_do_not_share_weights_are_not_named_as_if_they_did() -> None:
    experts = replace(LLAMA_8B, parameters=110 * 10**9, experts=16)
    zero2 = {"deepspeed": {"zero_optimization": {"stage": 2}}}
    with pytest.raises(
        SweepError, match=r"no card has enough memory.*weights alone.* or deepspeed=zero3 gpu=h200 gpu.c"
    ):
        choose({**LORA, **ONE, **zero2}, experts, RATES)


def test_every_card_has_a_peak() -> None:
    assert set(PEAK_TFLOPS) == set(GPUS) == set(RATES)
