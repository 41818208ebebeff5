"""gpu=auto, composed by Hydra as a user asks for it."""

from collections.abc import Callable, Iterator

import pytest

from runner.errors import SweepError
from runner.keys.identity import identify_run
from runner.types import Experiment
from tests.runner.composed_jobs import composed_jobs

Compose = Callable[[str], Experiment]


@pytest.fixture(scope="module")
def composed() -> Iterator[Compose]:
    with composed_jobs() as composed:
        yield lambda line: composed(*line.split())


def test_the_cards_are_chosen_before_the_key_is_computed(composed: Compose) -> None:
    line = "model=llama3_1_8b lora=r16 micro_batch_size=1 executor=modal"
    auto = composed(f"{line} gpu=auto")
    named = composed(f"{line} gpu={auto.gpu.type} gpu.count={auto.gpu.count}")
    assert auto.gpu == named.gpu
    assert auto.chosen.startswith(f"gpu=auto: {auto.gpu.count} x {auto.gpu.type} FITS; compared by a rough price")
    assert named.chosen == ""
    keys = {identify_run(one, (), trainer_lock="lock").key for one in (auto, named)}
    assert len(keys) == 1


def test_a_card_that_lacks_what_the_config_needs_is_passed_over(composed: Compose) -> None:
    """The tiny model is cheapest on a T4, which has no flash attention."""
    assert composed("gpu=auto attn_implementation=flash_attention_2").gpu.type == "l4"
    assert composed("gpu=auto attn_implementation=sdpa bf16=false fp16=true").gpu.type == "t4"


def test_the_number_of_cards_may_be_fixed_and_the_prices_set(composed: Compose) -> None:
    line = "model=llama3_1_8b lora=r16 micro_batch_size=1 executor=modal gpu=auto"
    assert composed(f"{line} gpu.count=2").gpu.count == 2
    dear = composed(f"{line} prices.gpu.h100=1")
    assert dear.gpu.type != composed(line).gpu.type == "h100"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("model=llama3_70b lora=none", "no card has enough memory"),
        (
            "model=mixtral_8x7b lora=r16",
            r"memory of a mixture of experts is not estimated.*gpu=h200 gpu.count=1 has 138",
        ),
        ("model=llama3_1_8b gpu.count=many", "gpu.count=many: expected a number of cards"),
        ("model=llama3_1_8b num_epochs=two", "num_epochs=two: expected float"),
        ("model=llama3_1_8b num_epochs=[1]", "num_epochs is one value"),
        ("model=llama3_1_8b max_steps=20 sequence_len=4k plugins=5", r"sequence_len=4k: expected int.\n- plugins=5: "),
        ("model=llama3_1_8b lora_modules_to_save=embed_tokens", r"expected a list: \[embed_tokens\]"),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_a_way_out(composed: Compose, line: str, told: str) -> None:
    with pytest.raises(SweepError, match=told):
        composed(f"{line} gpu=auto")
