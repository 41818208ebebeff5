from pathlib import Path
from typing import Any

import pytest

from modal_app.process import threads
from modal_app.process.attempt import base_environment, begin, environment
from modal_app.store.layout import Store
from modal_app.store.step import Device, Step, StepKind

LOCAL: dict[str, Any] = {"base_model": "inputs/model", "datasets": [{"path": "inputs/rows.jsonl"}]}


def variables(root: Path, config: dict[str, Any]) -> dict[str, str]:
    step = Step(StepKind.PREPROCESS, "key", config, "key")
    folder = Store(root).folder(step.kind, step.key)
    return environment(step, folder, folder.attempt(1))


def test_a_step_that_reads_only_inputs_never_asks_the_hub(tmp_path: Path) -> None:
    assert variables(tmp_path, LOCAL)["HF_HUB_OFFLINE"] == "1"


@pytest.mark.parametrize(
    "beside",
    [
        {"base_model": "owner/model"},
        {"tokenizer_config": "owner/tokenizer"},
        {"lora_model_dir": "owner/adapter"},
        {"datasets": [{"path": "owner/rows"}]},
        {"test_datasets": [{"path": "owner/rows"}]},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_a_step_that_reads_anything_of_the_hub_may_ask_it(tmp_path: Path, beside: dict[str, Any]) -> None:
    assert "HF_HUB_OFFLINE" not in variables(tmp_path, LOCAL | beside)


def test_a_rank_on_a_cpu_has_one_thread_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in threads.VARIABLES:
        monkeypatch.setenv(name, "8")
    assert base_environment(Device.CPU, 2).items() >= threads.with_threads(1).items()


def test_a_rank_on_a_gpu_has_its_part_of_the_cores_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    cores = threads.usable_cores()
    assert base_environment(Device.CUDA).items() >= threads.with_threads(cores).items()
    assert base_environment(Device.CUDA, 2 * cores).items() >= threads.with_threads(1).items()
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert base_environment(Device.CUDA)["OMP_NUM_THREADS"] == "5"
    assert threads.for_ranks(Device.CUDA, 4, 10.5) == threads.with_threads(2)


def test_latest_leads_to_the_newest_attempt_also_in_a_store_that_is_moved(tmp_path: Path) -> None:
    step, store = Step(StepKind.TRAIN, "key", LOCAL, "data"), Store(tmp_path / "store")
    for number in (1, 2, 3):
        attempt = begin(step, store, store.folder(step.kind, step.key))
        assert attempt.number == number
        assert store.folder(step.kind, step.key).latest.samefile(attempt.path)
    moved = Store(store.root.rename(tmp_path / "moved"))
    folder = moved.folder(step.kind, step.key)
    assert folder.latest.resolve() == folder.attempt(3).path.resolve()
    assert [one.number for one in folder.attempts()] == [1, 2, 3], "it is no attempt of its own"
