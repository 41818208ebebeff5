"""A composed job becomes a checked value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runner.errors import SweepError
from runner.request import Action
from runner.types import Gpu
from tests.conftest import refuse
from tests.runner.composed_jobs import ComposeJob, composed_jobs


@pytest.fixture
def composed() -> Iterator[ComposeJob]:
    """`composed("lora=r8")`: one job."""
    with composed_jobs() as composed:
        yield composed


def test_a_job_holds_both_halves_resolved(composed: ComposeJob) -> None:
    experiment = composed("lora=r32", "gpu.count=2", "tracking.tags=[a,b]", "executor.parallel=3", "seed=7")
    assert experiment.overrides[0] == "lora=r32"
    assert (experiment.axolotl["lora_r"], experiment.axolotl["seed"]) == (32, 7)
    assert experiment.gpu == Gpu("cpu", 2)
    assert experiment.tracking.tags == ("a", "b")
    assert experiment.executor.parallel == 3
    assert "${" not in str(experiment.axolotl)


def test_what_is_requested_for_the_command_is_not_part_of_a_run(ask: Callable[..., Any]) -> None:
    requested = ask("-m", "lora=r8,r16", "action=plan", "json=true", "store=there", "name=mine")
    assert [experiment.overrides for experiment in requested.experiments] == [("lora=r8",), ("lora=r16",)]
    assert (requested.request.action, requested.request.json) == (Action.PLAN, True)
    assert (requested.request.store, requested.request.name) == ("there", "mine")


@pytest.mark.parametrize("key", ["force", "confirmed", "json"])
@pytest.mark.parametrize(("word", "shown"), [("no", "no"), ("off", "off"), ("0", "0"), ("null", "null"), ("''", "''")])
def test_a_flag_is_true_or_false_and_no_other_word_means_yes(
    ask: Callable[..., Any], key: str, word: str, shown: str
) -> None:
    with pytest.raises(SweepError, match=f"^{key}={shown}: expected true or false\\.$"):
        ask(f"{key}={word}")
    assert getattr(ask(f"{key}=false").request, key) is False


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("-m lora=r8,r16 learning_rate=1e-3,2e-3 max_steps=5", "lora-learning_rate"),
        ("-m +sweeps=tiny_grid", "tiny_grid"),
        ("experiment=llama3_8b_alpaca", "llama3_8b_alpaca"),
        ("lora=r8 datasets.0.split=train", "lora-datasets_0_split"),
        ("", "default"),
        ("action=plan", "default"),
    ],
)
def test_a_sweep_is_named_after_its_request(ask: Callable[..., Any], line: str, name: str) -> None:
    assert ask(*line.split()).request.name == name


def test_a_limit_cuts_every_dataset_by_its_split(composed: ComposeJob) -> None:
    whole = composed("data.limit=10")
    assert whole.axolotl["datasets"][0]["split"] == "train[:10]"
    named = composed("data.limit=10", "datasets.0.split=test")
    assert named.axolotl["datasets"][0]["split"] == "test[:10]"


def test_a_users_file_is_read_by_the_local_dataset(composed: ComposeJob) -> None:
    experiment = composed("dataset=local", "data.path=mine.jsonl")
    assert experiment.axolotl["datasets"] == [{"path": "mine.jsonl", "type": "chat_template"}]


@pytest.mark.parametrize(
    ("line", "way_out"),
    [
        ("gpu.count=0", "at least one process"),
        ("learning_rate=[1e-3,2e-3]", "-m learning_rate="),
        ("optimizer=[adamw_torch,lion_pytorch]", "-m optimizer="),
        ("gpu.count=two", "at least one process"),
        ("deepspeed=zero2", "deepspeed=none"),
        ("+axolotl.fsdp_config.offload_params=true", "~fsdp_config"),
        ("dp_shard_size=2", "~dp_shard_size"),
        ("dataset=local", "data.path=FILE"),
        ("data.path=mine.jsonl", "dataset=local"),
        ("data.limit=0", "at least 1"),
        ('data.limit=5 datasets.0.split="train[:10]"', "already 'train\\[:10\\]'"),
        ("data.limit=5 ~datasets", "this run has none"),
        ("base_model=???", "base_model has no value yet"),
        ("tracking.mode=onlin", "online"),
        ("tracking.project=null", "tracking=disabled"),
        ("tracking.tags=a", "tracking.tags=\\[a\\]"),
        ("tracking.sweep_object=true", "tracking=offline does not contact W&B. Choose tracking=wandb"),
        ("tracking=disabled tracking.sweep_object=true", "tracking=disabled does not contact W&B. Choose"),
        ("tracking=wandb tracking.sweep_object=5", "true or false"),
        ("data=null", "data.KEY=value"),
        ("~gpu.type", "'gpu.type' not found"),
        ("+executor.paralel=2", "executor has no paralel"),
        ("data.seed=x", "whole number"),
        ("~seed", "seed=null: expected a whole number"),
        ("data.limit=true", "at least 1"),
        ("executor.parallel=0", "at least 1"),
        ("executor.parallel=two", "at least 1"),
        ("executor.warm=5", "true or false"),
        ("executor.warm_idle_s=-1", "seconds, 0 or more"),
        ("executor.warm_idle_s=long", "seconds, 0 or more"),
        ("executor.max_gpus=8", "executor.parallel sets how many"),
        ("executor=modal executor.max_gpus=0", "at least 1"),
        ("executor=modal gpu=h100 gpu.count=16", "at most 8"),
        ("executor=modal gpu=h100 gpu.fallback=[a100]", "gpu.fallback: there is no GPU a100. Did you mean"),
        ("executor=modal gpu=h100 gpu.fallback=a100_80gb", "a list is expected. Write gpu.fallback=\\[a100_80gb\\]"),
        ("executor=modal gpu=h100 gpu.fallback=5", "gpu.fallback=5: a list is expected"),
        ("gpu.type=[h100,a100_80gb]", "gpu.type=\\[h100, a100_80gb\\]: the name of one GPU is expected"),
        ("executor.type=slurm", "executor.type=slurm: there is no such executor. There are: local, modal"),
        ("executor.type=5", "executor.type=5: there is no such executor"),
        ("tracking.tags=5", "tracking.tags=\\[5\\]"),
        ("executor=modal gpu.fallback=[h100]", "needs no other GPU"),
        ("gpu=h100 gpu.fallback=[h200]", "It is for executor=modal"),
        ("executor=modal +executor.modal.imge=x", "executor.modal has no imge"),
        ("executor=modal executor.modal.packages=[einops]", "NAME==VERSION"),
        ("executor=modal executor.modal=5", "executor.modal.KEY=value"),
        ("+executor.modal.packages=[einops]", "executor.modal says what executor=modal deploys"),
        ("+executor.problems=[]", "executor has no problems. It has: .* modal\\."),
        ("executor=modal executor.modal.trainer=image", "by digest"),
        ("output_dir=here", "~output_dir"),
        ("wandb_project=mine", "tracking.mode"),
        ("hub_model_id=me/mine", "~hub_model_id"),
        ("resume_from_checkpoint=there", "lora_model_dir"),
        ("axolotl={learnig_rate:1}", "learning_rate"),
        ("axolotl={5:6}", "Axolotl has no key 5"),
        ("plugins=5", "plugins=5: expected a list: \\[5\\]"),
        ("plugins=axolotl.integrations.liger.LigerPlugin", "expected a list: \\[axolotl"),
        ("chat_template_jinja='${nothing}'", "cannot be resolved"),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(composed: ComposeJob, line: str, way_out: str) -> None:
    with pytest.raises(SweepError, match=way_out):
        refuse([composed(*line.split())])


@pytest.mark.parametrize("key", ["comet_api_key", "swanlab_api_key", "deepspeed.comet.api_key"])
def test_a_secret_is_refused_before_it_is_stored_and_not_repeated(composed: ComposeJob, key: str) -> None:
    with pytest.raises(SweepError, match=key.split(".")[0]) as refused:
        refuse([composed(f"axolotl.{key}=hunter2", "gpu=h100")])
    assert "hunter2" not in str(refused.value)


def test_a_project_named_like_a_number_is_text(composed: ComposeJob) -> None:
    tracking = composed("tracking.project=2026", "tracking.entity=7", "tracking.tags=[1,a]").tracking
    assert (tracking.project, tracking.entity, tracking.tags) == ("2026", "7", ("1", "a"))


@pytest.mark.parametrize("name", ["5", "2026", "[a,b]"])
def test_whatever_a_sweep_is_named_its_name_is_text(ask: Callable[..., Any], name: str) -> None:
    assert isinstance(ask(f"name={name}").request.name, str)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("base_model=a/b", {"learning_rate", "sequence_len"}),
        ("base_model=a/b learning_rate=1e-4", {"sequence_len"}),
        ("base_model=a/b model=llama3_2_1b", set()),
        ("base_model=a/b experiment=llama3_8b_alpaca", set()),
        ("base_model=${shipped:tiny/model}", set()),
        ("lora=r8", set()),
    ],
)
def test_the_values_of_the_default_model_are_known_next_to_another_base_model(
    ask: Callable[..., Any], line: str, kept: set[str]
) -> None:
    (experiment,) = ask(*line.split()).experiments
    assert kept == {"learning_rate", "sequence_len"} & set(experiment.for_another_model)
    assert "base_model" not in experiment.for_another_model


def test_sharding_is_fine_where_there_are_gpus(composed: ComposeJob) -> None:
    experiment = composed("deepspeed=zero3", "gpu=h100", "gpu.count=8")
    assert experiment.axolotl["deepspeed"]["zero_optimization"]["stage"] == 3


def test_everything_wrong_with_a_job_is_said_at_once(composed: ComposeJob) -> None:
    with pytest.raises(SweepError) as refused:
        refuse([composed("gpu.count=0", "data.limit=0", "executor.warm=5", "tracking.mode=onlin")])
    assert str(refused.value).count("\n- ") == 4
