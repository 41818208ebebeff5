from __future__ import annotations

import pytest

from runner.config.gpus import GPUS, gpu_problems, modal_gpus
from runner.types import Gpu


@pytest.mark.parametrize(
    ("gpu", "executor", "says"),
    [
        (Gpu("h100", 1, ("a100_80g",)), "modal", "Did you mean a100_80gb"),
        (Gpu("h100", 8, ("a10",)), "modal", "gpu=a10 gpu.count=8: a container has at most 4"),
        (Gpu("h100", 16), "modal", "at most 8 of them; several machines are not supported yet"),
        (Gpu("rtx4090", 1), "modal", "there is no such GPU"),
        (Gpu("rtx4090", 1), "local", "there is no such GPU"),
        (Gpu("h100", 1, ("a100_80gb",)), "local", "trains on the GPUs of this machine"),
        (Gpu("cpu", 1, ("h100",)), "modal", "needs no other GPU"),
    ],
)
def test_gpus_that_cannot_be_had_are_refused_with_the_way_out(gpu: Gpu, executor: str, says: str) -> None:
    with pytest.raises(AssertionError, match=says):
        raise AssertionError("\n".join(map(str, gpu_problems(gpu, executor))))


def test_a_users_own_machine_may_have_more_cards_than_modal_rents() -> None:
    assert gpu_problems(Gpu("h100", 16), "local") == []


def test_the_requested_card_comes_first_among_the_acceptable_ones() -> None:
    assert modal_gpus(Gpu("h100", 2, ("a100_80gb", "h200"))) == ("H100:2", "A100-80GB:2", "H200:2")
    assert modal_gpus(Gpu("a100_80gb", 1, ("h100", "a100_80gb"))) == ("A100-80GB:1", "H100:1")
    assert all(modal_gpus(Gpu(name, 1)) for name in GPUS)
