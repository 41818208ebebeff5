"""What is submitted to Modal, before anything is called. The calls are tests/end_to_end/test_modal.py's."""

from __future__ import annotations

from typing import Any

import pytest

from modal_app.layout import Store
from modal_app.remote import Job
from runner.errors import SweepError
from runner.executors.modal import _trees, mirrored_steps
from runner.gpus import modal_gpu
from runner.types import Gpu, Input, InputKind, Plan
from tests.runner.builders import plan, run

COMMIT = "a" * 40


def job(step: Any) -> Job:
    return Job(step.to_json(), app="app", claims="claims", cache_volume="c", runs_volume="r", function=str(step.kind))


def trees(made: Plan, done: set[str]) -> list[Job]:
    steps = [dataset.step for dataset in made.datasets] + [planned.step for planned in made.pending]
    return _trees(made, {f"{step.kind}/{step.key}": job(step) for step in steps}, done)


def sweep(store: Store, *, hub: bool = False) -> Plan:
    """Two datasets with two runs each."""
    model = Input("base_model", "owner/model", InputKind.HUB, COMMIT)
    configs = [
        {"base_model": "owner/model" if hub else "inputs/abc", "sequence_len": length, "lora_r": rank}
        for length in (64, 128)
        for rank in (8, 16)
    ]
    return plan([run(config, inputs=[model] if hub else []) for config in configs], store)


def test_a_dataset_is_called_with_the_runs_that_wait_for_it(store: Store) -> None:
    called = trees(sweep(store), set())
    assert [one.function for one in called] == ["preprocess", "preprocess"]
    assert [[next_one.function for next_one in one.then] for one in called] == [["train"] * 2] * 2


def test_what_is_done_there_is_not_called_again(store: Store) -> None:
    made = sweep(store)
    first, second = made.datasets
    done = {f"preprocess-{first.key}", f"train-{first.runs[0]}", *(f"train-{key}" for key in second.runs)}
    (called,) = trees(made, done)
    assert (called.function, called.read_step().key) == ("train", first.runs[1])


def test_a_hub_model_is_fetched_once_before_all_that_needs_it(store: Store) -> None:
    (fetch,) = trees(sweep(store, hub=True), set())
    assert fetch.name == f"fetch/owner/model@{COMMIT}"
    assert [one.function for one in fetch.then] == ["preprocess", "preprocess"]


def test_a_model_that_is_there_is_not_fetched_again(store: Store) -> None:
    called = trees(sweep(store, hub=True), {f"fetch-owner-model@{COMMIT}"})
    assert [one.function for one in called] == ["preprocess", "preprocess"]


def test_a_mirror_knows_what_comes_before_each_dataset(store: Store) -> None:
    steps = mirrored_steps(sweep(store, hub=True))
    assert [step.fetch for step in steps if step.kind == "preprocess"] == [f"fetch/owner/model@{COMMIT}"] * 2
    assert not any(step.fetch for step in steps if step.kind == "train")


def test_a_job_with_what_follows_it_survives_the_way_as_json(store: Store) -> None:
    for one in trees(sweep(store, hub=True), set()):
        assert Job.from_dict(one.as_dict()) == one


@pytest.mark.parametrize(
    ("gpu", "says"),
    [(Gpu("rtx4090", 1), "there is no such GPU"), (Gpu("h100", 16), "at most 8"), (Gpu("a10", 8), "at most 4")],
)
def test_gpus_that_modal_does_not_have_are_refused(gpu: Gpu, says: str) -> None:
    with pytest.raises(SweepError, match=says):
        modal_gpu(gpu.type, gpu.count)
