from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modal_app.store.layout import Store
from runner.errors import SweepError
from runner.executors.modal_gpus import Variant, containers_of, placements, split
from runner.types import ExecutorChoice, Gpu
from tests.runner.builders import plan, run

ONE, TWO, FOUR = (Variant((f"H100:{cards}",), cards) for cards in (1, 2, 4))
CPU = Variant((), 0)


def test_without_a_cap_nothing_is_split() -> None:
    assert split({TWO: 3, FOUR: 5}, None, None) == {}


def test_each_variant_has_a_container_and_the_rest_goes_where_most_runs_wait() -> None:
    assert split({TWO: 6, FOUR: 2}, 12, None) == {TWO: 4, FOUR: 1}
    assert split({TWO: 2, FOUR: 6}, 14, None) == {TWO: 1, FOUR: 3}
    assert split({ONE: 1, TWO: 1}, 100, None) == {ONE: 1, TWO: 1}, "no more containers than runs"


def test_runs_on_the_cpu_take_no_gpu_but_a_slot_next_to_the_others() -> None:
    assert split({CPU: 5, TWO: 5}, 2, None) == {CPU: 5, TWO: 1}
    assert split({CPU: 5, TWO: 5}, None, 4) == {CPU: 2, TWO: 2}


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(1, 30)), min_size=1, max_size=6),
    st.none() | st.integers(1, 60),
    st.none() | st.integers(1, 20),
)
def test_no_split_exceeds_its_caps_or_leaves_room_that_a_waiting_run_could_use(
    requested: list[tuple[int, int]], max_gpus: int | None, parallel: int | None
) -> None:
    wanted = {Variant((f"{number}:{cards}",), cards): runs for number, (cards, runs) in enumerate(requested)}
    try:
        containers = split(wanted, max_gpus, parallel)
    except SweepError:
        too_few_gpus = max_gpus is not None and sum(one.cards for one in wanted) > max_gpus
        assert too_few_gpus or (parallel is not None and len(wanted) > parallel)
        return
    if not containers:
        assert max_gpus is parallel is None
        return
    gpus = sum(one.cards * count for one, count in containers.items())
    assert all(1 <= containers[one] <= runs for one, runs in wanted.items())
    assert max_gpus is None or gpus <= max_gpus
    assert parallel is None or sum(containers.values()) <= parallel
    for one, runs in wanted.items():
        fits = max_gpus is None or gpus + one.cards <= max_gpus
        assert containers[one] == runs or not fits or sum(containers.values()) == parallel


@pytest.mark.parametrize(
    ("max_gpus", "parallel", "says"),
    [
        (3, None, "one run alone needs 4 GPUs. Raise executor.max_gpus to 4"),
        (5, None, "one of each is 6 GPUs. Raise it to 6"),
        (None, 1, "executor.parallel=1 is too low"),
    ],
)
def test_a_cap_that_leaves_a_variant_without_a_container_is_refused(
    max_gpus: int | None, parallel: int | None, says: str
) -> None:
    with pytest.raises(SweepError, match=says):
        split({TWO: 3, FOUR: 3}, max_gpus, parallel)


def test_runs_are_placed_by_what_they_may_train_on(store: Store) -> None:
    gpus = [Gpu("h100", 2), Gpu("h100", 2, ("a100_80gb",)), Gpu("cpu", 2)]
    runs = [run({"lora_r": rank, "seed": 1}, gpu=gpu) for rank, gpu in enumerate(gpus)]
    placed = placements(plan(runs, store), ExecutorChoice("modal", max_gpus=4))
    assert [placed[one.key].variant.gpus for one in runs] == [("H100:2",), ("H100:2", "A100-80GB:2"), ()]
    assert [placed[one.key].max_containers for one in runs] == [1, 1, 1]


def test_runs_that_ask_for_the_same_share_a_cap(store: Store) -> None:
    runs = [run({"lora_r": rank}, gpu=Gpu("h100", 2)) for rank in range(5)]
    placed = placements(plan(runs, store), ExecutorChoice("modal", max_gpus=7))
    assert {one.max_containers for one in placed.values()} == {3}


@pytest.mark.parametrize(
    ("cap", "reuse", "says"),
    [
        (3, True, "5 runs in 3 containers, each of which takes about 1 or 2 in turn"),
        (1, True, "5 runs in 1 container, which takes them in turn"),
        (3, False, "5 runs, 3 at a time, each in a container of its own"),
        (5, True, "5 runs, each in a container of its own"),
        (None, True, "5 runs, each in a container of its own"),
    ],
)
def test_containers_are_reused_where_there_are_fewer_than_runs(
    store: Store, cap: int | None, reuse: bool, says: str
) -> None:
    pending = plan([run({"lora_r": rank}, gpu=Gpu("h100", 1)) for rank in range(5)], store)
    (containers,) = containers_of(pending, placements(pending, ExecutorChoice("modal", parallel=cap)), reuse=reuse)
    assert containers.text() == says
    assert containers.reused is (reuse and cap is not None and cap < 5)
