from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modal_app.process.attempt import write_yaml
from modal_app.serving.spec import ServedModel
from modal_app.store.layout import Store
from modal_app.store.step import StepKind
from runner.errors import SweepError
from runner.keys.content import ContentHashes, keep
from runner.serve.choice import choose
from runner.serve.here import serve
from runner.serve.vllm import gpu_of, vllm_of
from runner.store.ledger import Ledger
from runner.types import Gpu
from tests.runner.builders import begin_attempt, end_attempt, plan, run

LORA = {"base_model": "inputs/ba5e", "adapter": "lora", "lora_r": 8, "chat_template": "chatml"}


def swept(store: Store, *configs: dict[str, Any], name: str = "grid", gpu: Gpu | None = None) -> list[str]:
    """A sweep of finished runs; returns their keys."""
    runs = [run({**LORA, **config}, gpu=gpu or Gpu("h100", 2)) for config in configs]
    Ledger(store, name).open(plan(runs, store, name), "axosweep")
    for one in runs:
        folder = store.folder(StepKind.TRAIN, one.key)
        end_attempt(store, StepKind.TRAIN, one.key, begin_attempt(store, StepKind.TRAIN, one.key))
        write_yaml(folder.config, one.config)
        identity = {"axolotl": dict(one.config), "gpu": {"type": one.experiment.gpu.type, "count": 2}, "data": {}}
        folder.identity.write_text(json.dumps(identity))
    return [one.key for one in runs]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


def test_a_sweeps_runs_are_served_by_their_keys_and_by_what_tells_them_apart(store: Store) -> None:
    small, large = swept(store, {}, {"lora_r": 24})
    chosen = choose([store], [None])
    assert [model.names for model in chosen.models] == [("base",), (small, "lora_r=8"), (large, "lora_r=24")]
    assert [model.adapter for model in chosen.models] == [
        None, str(store.runs / small / "model"), str(store.runs / large / "model")
    ]  # fmt: skip
    assert chosen.summaries[0] == "the base model inputs/ba5e"


def test_a_run_that_is_named_twice_is_served_once(store: Store) -> None:
    small, _ = swept(store, {}, {"lora_r": 24})
    chosen = choose([store], [small, small[:6]])
    assert [model.names[0] for model in chosen.models] == ["base", small]


def test_runs_share_a_base_only_where_nothing_may_make_it_another(store: Store) -> None:
    same = {"learning_rate": 1e-4, "lora_dropout": 0.1, "micro_batch_size": 4}
    swept(store, {}, same, {"load_in_4bit": True}, {"base_model": "inputs/other"}, {"chat_template": "llama3"})
    models = choose([store], [None]).models
    assert [model.names[0] for model in models][:4] == ["base-1", "base-2", "base-3", "base-4"]
    runs = models[4:]
    assert runs[0].shares == runs[1].shares
    assert len({model.shares for model in runs}) == 4
    assert [model.shares for model in models[:4]] == list(dict.fromkeys(model.shares for model in runs))


def test_runs_whose_datasets_have_chat_templates_of_their_own_share_no_base() -> None:
    """It is prompted with the template that it was loaded with."""
    datasets = [
        {"path": "a", "type": "chat_template", "chat_template": "phi_3"}, {"path": "a", "type": "chat_template"},
        {"path": "a", "type": "chat_template", "chat_template": "llama3"}, {"path": "a", "type": "alpaca"},
    ]  # fmt: skip
    models = [ServedModel(("a",), {"datasets": [one]}, adapter="a") for one in datasets]
    assert len({model.shares for model in models}) == 4
    elsewhere = ServedModel(("b",), {"datasets": [{**datasets[0], "path": "b", "split": "test"}]}, adapter="b")
    assert elsewhere.shares == models[0].shares
    own = [ServedModel(("a",), {"chat_template": "llama3", "datasets": [one]}, adapter="a") for one in datasets]
    assert len({model.shares for model in own}) == 1


def test_a_full_fine_tune_is_its_own_model_and_has_no_base_next_to_it(store: Store) -> None:
    (key,) = swept(store, {"adapter": None})
    (model,) = choose([store], [None]).models
    assert (model.weights, model.adapter) == (str(store.runs / key / "model"), None)


def test_runs_of_here_and_of_modal_are_not_served_together(store: Store) -> None:
    (here,) = swept(store, {})
    mirror = Store(store.root / "modal")
    (there,) = swept(mirror, {"lora_r": 24}, name="far")
    with pytest.raises(SweepError, match="Some of these runs are on Modal, others here"):
        choose([store, mirror], [here, there])


def test_an_unfinished_run_is_refused_and_one_of_a_sweep_left_out(store: Store) -> None:
    done, other = swept(store, {}, {"lora_r": 24})
    store.folder(StepKind.TRAIN, other).done.unlink()
    with pytest.raises(SweepError, match=f"The run {other} has not finished"):
        choose([store], [other])
    assert [model.names[0] for model in choose([store], [None]).models] == ["base", done]
    with pytest.raises(SweepError, match=f"Did you mean {done}"):
        choose([store], [f"{done[:-1]}x"])


def test_vllm_gets_the_base_and_each_adapter_with_all_its_names(store: Store) -> None:
    small, large = swept(store, {}, {"lora_r": 24})
    served = vllm_of(choose([store], [None]), 2, half=False)
    assert (served.model, served.names, served.rank, served.gpus) == ("/cache/inputs/ba5e", ("base",), 24, 2)
    assert served.tokenizer == f"/data/runs/{small}/model"
    assert served.adapters == {
        small: f"/data/runs/{small}/model",
        "lora_r=8": f"/data/runs/{small}/model",
        large: f"/data/runs/{large}/model",
        "lora_r=24": f"/data/runs/{large}/model",
    }


def test_a_base_of_the_hub_is_read_at_the_commit_that_was_trained(store: Store) -> None:
    swept(store, {"base_model": "owner/base", "revision_of_model": "c0ffee"})
    served = vllm_of(choose([store], [None]), 1, half=False)
    assert served.model == "/cache/hub/models--owner--base/snapshots/c0ffee"


@pytest.mark.parametrize(
    ("configs", "said"),
    [
        (({}, {"base_model": "inputs/other"}), "vLLM has one base model"),
        (({"adapter": None}, {"adapter": None, "learning_rate": 1e-3}), "vLLM has one base model"),
        (({"peft_use_dora": True},), "it has DoRA .peft_use_dora.. Serve it merged"),
        (({"lora_modules_to_save": ["lm_head"]},), "complete modules next to the adapter"),
        (({"lora_r": 1024},), "its rank is 1024, over 512"),
    ],
)
def test_what_vllm_cannot_serve_is_refused_with_the_way_out(
    store: Store, configs: tuple[dict[str, Any], ...], said: str
) -> None:
    swept(store, *configs)
    with pytest.raises(SweepError, match=said):
        vllm_of(choose([store], [None]), 1, half=False)


def test_the_gpu_is_the_runs_own_unless_one_is_named(store: Store) -> None:
    swept(store, {}, {"lora_r": 24})
    chosen = choose([store], [None])
    assert gpu_of(chosen, None) == ("h100", 2)
    assert gpu_of(chosen, "l4") == ("l4", 1)
    assert gpu_of(chosen, "a100_80gb:4") == ("a100_80gb", 4)
    for wrong in ("l4:0", "l4:", "l4:x", "gtx"):
        with pytest.raises(SweepError):
            gpu_of(chosen, wrong)


def test_runs_that_had_no_gpu_need_one_to_be_named(store: Store) -> None:
    swept(store, {}, gpu=Gpu("cpu", 1))
    with pytest.raises(SweepError, match=r"trained on cpu\. Name one: --gpu l4"):
        gpu_of(choose([store], [None]), None)


def test_an_edited_base_model_is_not_served(store: Store, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("as planned")
    hashes = ContentHashes(store.cache / "hashes.json")
    name = f"inputs/{hashes.of(tmp_path / 'model')[:16]}"
    keep(tmp_path / "model", hashes.of(tmp_path / "model"), store.root / name, hashes)
    swept(store, {"base_model": name})
    chosen = choose([store], [None])
    (tmp_path / "model" / "weights").write_text("edited")
    with pytest.raises(SweepError, match=r"Nothing is served: .*weights changed after the run was planned"):
        serve(chosen, "", "127.0.0.1", 0, max_body=1 << 20, as_json=False)
